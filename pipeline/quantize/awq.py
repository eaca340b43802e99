"""Stage function: a float graph that computes the same, with channels scaled so that rounding weights costs less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Scheme
from pipeline.formats.format import Layer, NumberFormat
from pipeline.formats.scheme import SchemeFormats
from pipeline.numerics.affine import Float
from pipeline.numerics.awq import Rounding, awq_factors
from pipeline.quantize.fold_scales import fold_scales
from pipeline.quantize.heads import formats_of
from pipeline.quantize.hessians import Hessians
from pipeline.quantize.layers import read_layers
from pipeline.quantize.parts import Part, joined, parts, save_parts
from pipeline.quantize.quantize import tied_products
from pipeline.quantize.smooth import groups_of, scale_rows


def run(context: StageContext) -> StageMetadata:
    """For each activation that feeds products in blocks: its channels divided by factors, through the operators that
    make it, and the products' rows times them. Where these operators cannot take factors over, nothing is done: no
    operator is added. The metadata say how many activations there are, and the exponent of each that was scaled."""
    scheme = Scheme.model_validate(context.config["scheme"])
    models: dict[str, ir.Model] = {}
    metadata = joined(_scaled(part, scheme, models) for part in parts(context))
    save_parts(context, models)
    return metadata


def _scaled(part: Part, scheme: Scheme, models: dict[str, ir.Model]) -> StageMetadata:
    """Of one graph, which is added to `models`."""
    model, context = part.load(), part.context
    layers, _ = read_layers(context.inputs["layers"], model.graph)
    formats, hessians = formats_of(scheme, layers), Hessians(context.inputs["hessians"])
    tied = {layer.weight_name for layer in tied_products(layers).values()}
    groups = groups_of([layer for layer in layers if layer.op == "linear"])
    exponents: dict[str, float] = {}
    for done, group in enumerate(groups, start=1):
        if _takes(group, formats, tied):
            factors, exponent = awq_factors(
                [(layer.weight, _rounding(_form(layer, formats))) for layer in group],
                hessians.sum((group[0].activation,)),
            )
            if exponent > 0 and _fold(group, factors):
                exponents[group[0].activation] = exponent
        context.progress(done, len(groups))
    models[part.spec.name] = model
    return {"groups": len(groups), "exponents": exponents}


def _form(layer: Layer, formats: SchemeFormats) -> NumberFormat:
    return formats.of("linear", str(layer.node.name))


def _takes(group: Sequence[Layer], formats: SchemeFormats, tied: set[str]) -> bool:
    """Whether products read one activation, are all rounded, and none shares its weight with a table, whose rows would
    change."""
    stored = all(
        _form(layer, formats).code_bits <= 8 and not formats.leaves("linear", str(layer.node.name), layer.weight)
        for layer in group
    )
    alone = len({layer.activation for layer in group}) == 1
    return stored and alone and not any(layer.weight_name in tied for layer in group)


def _rounding(form: NumberFormat) -> Rounding:
    return lambda weight: form.round("linear", weight)[0]


def _fold(group: Sequence[Layer], factors: Float) -> bool:
    """Whether the operators before took the factors over."""
    activation = group[0].node.inputs[0]
    assert activation is not None  # noqa: S101  # a product has two inputs
    if not fold_scales(activation, (1 / factors).astype(np.float32), len(group)):
        return False
    for layer in group:
        scale_rows(layer, factors)
    return True
