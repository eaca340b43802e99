"""Stage function: decide the number format of every weight, and compute codes and scales. Writes no ONNX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir
from safetensors.numpy import load_file

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Json, Progress, Scheme
from pipeline.formats.format import Arrays, Entry, Known, Layer
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.edit import constant, fixed_values, name_of
from pipeline.graph.lazy import LazyMatrix
from pipeline.numerics.affine import Bytes, Float, is_empty
from pipeline.numerics.blocks import Grid
from pipeline.numerics.gptq import Curvature
from pipeline.quantize.calibrate import LOSSES, MEANS, RANGES, VALUES
from pipeline.quantize.choice import Choice, Choices
from pipeline.quantize.codes import Codes, entry_of
from pipeline.quantize.conv import propagated_ranges, quantize_region, region_of, stored_convolution
from pipeline.quantize.given import GivenCodes, given_codes, require_exact
from pipeline.quantize.heads import formats_of
from pipeline.quantize.hessians import Hessians
from pipeline.quantize.layers import LeftEntry, left_entry, read_layers
from pipeline.quantize.parts import Part, joined, parts
from pipeline.quantize.plan import QuantizationPlan, save_plan
from pipeline.quantize.qdq_region import QdqRegion, activation_output
from pipeline.quantize.ruined import NONE, Damage, Stored, form_of, in_float, ruined
from pipeline.quantize.shards import Shards
from pipeline.quantize.stretches import multiplied, products

SENSITIVE = "sensitive.json"
"""Node -> why it stays in float."""
ALLOCATED = "formats.json"
"""Node -> the number format that its measured sensitivity gave it."""
NOISE = "noise.json"
"""`noisy` and `wide` of `Damage`."""
_COMPARED = 1 << 20
"""Values that are compared at a time."""
LEARNED = "learned.safetensors"
"""Of weights whose codes are learned: `<weight>.codes` uint8 [N, blocks, size], `.scales` float32 [N, blocks],
`.zero_points` uint8 [N, blocks]."""


@dataclass(frozen=True)
class Calibrated:
    """(low, high) per tensor, the mean of every channel of the convolutions' inputs, how many values the tensors around
    convolutions have, what 8 bits do to layers, and the Hessians of products; `learned`: codes and grids that
    training decided; `fixed`: tensors that are the same for every sample; `given`: codes that the checkpoint has;
    `at_run_time`: products find their inputs' ranges then, whatever was calibrated."""

    ranges: Arrays = field(default_factory=dict)
    means: Arrays = field(default_factory=dict)
    values: dict[str, float] | None = None
    damage: Damage = NONE
    hessians: Hessians | None = None
    learned: dict[str, tuple[Bytes, Grid]] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    given: GivenCodes = field(default_factory=lambda: GivenCodes({}))
    at_run_time: bool = False


def run(context: StageContext) -> StageMetadata:
    """Writes `plan.json` (QuantizationPlan) and `codes.safetensors` (`<weight>.codes`, `<weight>.scales`)."""
    scheme = Scheme.model_validate(context.config["scheme"])
    given = given_codes(context)
    made = [_quantized(part, scheme, given) for part in parts(context)]
    given.require_seen(weight for graph in made for weight in graph.kept)
    _refuse_nothing(made, scheme)
    return joined(graph.metadata for graph in made)


@dataclass(frozen=True)
class _Quantized:
    """The plan of one graph and what was found out about it. `takes`: whether it has layers that a scheme could take;
    `sensitive`: whether some stay in float for that; `kept`: the weights that stay in float."""

    plan: QuantizationPlan
    metadata: StageMetadata
    takes: bool
    sensitive: bool
    kept: tuple[Float, ...]


def _quantized(part: Part, scheme: Scheme, given: GivenCodes) -> _Quantized:
    context, graph = part.context, part.load().graph
    layers, left = read_layers(context.inputs["layers"], graph)
    formats = formats_of(scheme, layers, allocated(context))
    found = replace(calibrated(context, graph, layers, formats), given=given)
    layers, sensitive = without_sensitive(layers, context)
    chosen = choose(graph, layers, formats, found)
    left = [*left, *sensitive, *chosen.left]
    shards = Shards(context.out / "shards" if context.scratch is None else context.scratch)
    plan, arrays = decide(
        chosen.layers, left, chosen.region, formats, found, context.progress, chosen.stored, Codes(shards)
    )
    save_plan(context.out, plan, shards)
    run_time = finds_ranges_at_run_time(chosen.layers, chosen.region, found.values or {})
    metadata = {
        "linears": len(plan.linears),
        "tables": len(plan.tables),
        "convolutions": len(plan.convolutions),
        "others": len(plan.others),
        "float32_scales": [entry.weight for entry in plan.entries if formats.has_wider_scales(entry)],
        "never_active": sorted(name for name, ends in found.ranges.items() if is_empty(*map(float, ends))),
        **({"damping": found.hessians.damping} if found.hessians else {}),
        "left_in_float": [entry.model_dump(mode="json") for entry in plan.left_in_float],
        "at_run_time": len(plan.linears) if run_time else 0,
        "stored_only": _stored_only(chosen, found.damage),
        "formats": _stored(plan, formats, arrays),
    }
    kept = tuple(constant(graph.initializers.get(entry.weight)) for entry in plan.left_in_float)
    return _Quantized(
        plan, metadata, bool(chosen.layers), bool(sensitive), tuple(each for each in kept if each is not None)
    )


def _stored(plan: QuantizationPlan, formats: SchemeFormats, arrays: Arrays) -> list[dict[str, Json]]:
    """How every weight is stored: the fields of a `TensorFormat`, in the order in which the graph has them written."""
    first = {entry.weight: entry for entry in reversed(plan.entries)}
    sizes: Counter[str] = Counter()
    for name, array in arrays.items():
        sizes[name.rpartition(".")[0]] += array.nbytes
    return [
        {
            "name": entry.weight,
            "node": entry.node,
            "op": entry.op,
            "format": entry.format,
            "override": formats.override(entry.node),
            "megabytes": sizes[entry.weight] / 1e6,
            **({"given": True} if entry.given else {}),
        }
        for entry in reversed(first.values())
    ]


def _refuse_nothing(made: Sequence[_Quantized], scheme: Scheme) -> None:
    """A scheme that takes no weight at all would hand out the float model under its own name."""
    if any(graph.plan.entries or graph.sensitive for graph in made):
        return
    reasons = Counter(entry.reason for graph in made for entry in graph.plan.left_in_float)
    said = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
    raise StageError(
        f"The scheme {scheme.name!r} takes none of the model's weights: "
        + (said or "no product, convolution, table or recurrent layer reads a constant matrix of float32")
        + ".",
        "Choose a scheme that has operators for this model (`edge recipes` lists them), or fp32."
        if any(graph.takes for graph in made)
        else "No other scheme does: export it as it is, with --recipe fp32.",
    )


def allocated(context: StageContext) -> dict[str, str]:
    """The formats that measured sensitivity gave, by node."""
    return dict(context.inputs["allocation"].read_json(ALLOCATED)) if "allocation" in context.inputs else {}


def without_sensitive(layers: list[Layer], context: StageContext) -> tuple[list[Layer], list[LeftEntry]]:
    """Layers to round, and those that their measured sensitivity leaves in float."""
    reasons = context.inputs["sensitivity"].read_json(SENSITIVE) if "sensitivity" in context.inputs else {}
    kept = [layer for layer in layers if layer.node.name not in reasons]
    left = [left_entry(layer, reasons[layer.node.name]) for layer in layers if layer.node.name in reasons]
    return kept, left


def _without_unseen(layers: list[Layer], ranges: Arrays) -> tuple[list[Layer], list[LeftEntry]]:
    """Layers to round, and the convolutions around a tensor that calibration never saw active: no range is known, and
    one of nothing would make a later input zero. (Products find their range at run time then.)"""
    empty = {name for name, ends in ranges.items() if is_empty(*map(float, ends))}
    unseen = {id(layer) for layer in layers if layer.op == "conv" and empty.intersection(_ends(layer))}
    reason = "its input or its output is zero on every calibration sample, so that no range is known"
    left = [left_entry(layer, reason) for layer in layers if id(layer) in unseen]
    return [layer for layer in layers if id(layer) not in unseen], left


@dataclass(frozen=True)
class Chosen:
    """The layers of a graph to round, its region, the products among them to store and compute in float, and those that
    stay in float."""

    layers: list[Layer]
    region: QdqRegion
    stored: list[Stored]
    left: list[LeftEntry]


def choose(graph: ir.Graph, layers: list[Layer], formats: SchemeFormats, found: Calibrated) -> Chosen:
    """What becomes of each of `layers`, by what calibration found."""
    layers, unseen = _without_unseen(layers, found.ranges)
    region = region_of(graph, layers, formats, found.values, found.damage)
    layers, stored, unfit = _without_ruined(layers, formats, found.damage)
    return Chosen(layers, region, stored, [*unseen, *region.left, *unfit])


def _without_ruined(
    layers: list[Layer], formats: SchemeFormats, damage: Damage
) -> tuple[list[Layer], list[Stored], list[LeftEntry]]:
    """Layers to round; of these the products to store and compute in float; and the products that stay in float.
    (`region_of` sees to convolutions.)"""
    products = [layer for layer in layers if layer.op == "linear"]
    why = ruined(products, formats, damage)
    found = {id(layer): in_float(layer, why[id(layer)], formats, damage) for layer in products if id(layer) in why}
    kept = [layer for layer in layers if not isinstance(found.get(id(layer)), str)]
    left = [left_entry(layer, reason) for layer in products if isinstance(reason := found.get(id(layer)), str)]
    return kept, [stored for stored in found.values() if isinstance(stored, Stored)], left


def _stored_only(chosen: Chosen, damage: Damage) -> dict[str, Json]:
    """Why weights are stored and computed in float that have an integer form, or are stored in more than 8 bits."""
    found: dict[str, Json] = {
        layer.weight_name: f"stored in {form.code_bits} bits and computed in float: {reason}"
        for layer, form, reason in (*chosen.region.stored, *chosen.stored)
    }
    others = {layer.weight_name for layer in chosen.layers if layer.op not in ("conv", "linear")}
    kept = {name: f"stored and computed in float: {reason}" for name, reason in damage.noisy.items() if name in others}
    wide = {name: reason for name, reason in damage.wide.items() if name in others}
    return found | kept | {name: f"stored in 16 bits and computed in float: {reason}" for name, reason in wide.items()}


def _ends(layer: Layer) -> tuple[str, str]:
    return layer.activation, name_of(activation_output(layer.node.outputs[0]))


def calibrated(context: StageContext, graph: ir.Graph, layers: list[Layer], formats: SchemeFormats) -> Calibrated:
    """What calibration found, for every tensor that may be rounded; nothing for schemes that need nothing. `layers`:
    all that the graph has."""
    hessians = Hessians(context.inputs["hessians"]) if "hessians" in context.inputs else None
    learned = read_learned(context.inputs["learned"]) if "learned" in context.inputs else {}
    if "ranges" not in context.inputs:
        return Calibrated(hessians=hessians, learned=learned, fixed=fixed_values(graph))
    artifact = context.inputs["ranges"]
    ranges = propagated_ranges(load_file(artifact.file(RANGES)), region_of(graph, layers, formats))
    values = {name: float(total[0]) for name, total in load_file(artifact.file(VALUES)).items()}
    losses = {name: (float(lost[0]), float(lost[1])) for name, lost in load_file(artifact.file(LOSSES)).items()}
    damage = Damage(losses, **context.inputs["noise"].read_json(NOISE)) if "noise" in context.inputs else Damage(losses)
    return Calibrated(ranges, load_file(artifact.file(MEANS)), values, damage, hessians, learned, fixed_values(graph))


def read_learned(artifact: Artifact) -> dict[str, tuple[Bytes, Grid]]:
    """Codes and grids of the graph's weights, by name."""
    arrays = load_file(artifact.file(LEARNED))
    names = [name.removesuffix(".codes") for name in arrays if name.endswith(".codes")]
    return {
        name: (arrays[f"{name}.codes"], Grid(arrays[f"{name}.scales"], arrays[f"{name}.zero_points"])) for name in names
    }


def decide(
    layers: list[Layer],
    left: list[LeftEntry],
    region: QdqRegion,
    formats: SchemeFormats,
    found: Calibrated,
    progress: Progress,
    stored: Sequence[Stored] = (),
    codes: Codes | None = None,
) -> tuple[QuantizationPlan, Arrays]:
    """The plan for `layers`, whose convolutions are those of `region`, and its arrays. `stored`: products that are
    computed in float; `codes`: where the arrays go.

    See `finds_ranges_at_run_time` for the inputs of products.
    """
    codes, forms = codes or Codes(), {id(layer): form for layer, form, _ in stored}
    wide = {id(layer): form_of(layer, formats, found.damage) for layer in layers if found.damage.changes(layer)}
    found = replace(found, at_run_time=finds_ranges_at_run_time(layers, region, found.values or {}))
    choices, kept = Choices(formats, found.given, {**wide, **forms}), list(left)
    others = [layer for layer in layers if layer.op != "conv"]
    readers = _activations(others)
    tied = tied_products(others)
    entries: list[Entry] = []
    for done, layer in enumerate(others, start=1):
        choice, product = choices.of(layer), tied.get(layer.weight_name)
        if choice.reason:
            kept.append(left_entry(layer, choice.reason))
        else:
            made = None
            if product is not None and id(product) not in forms:
                made = _tied_entry(layer, choice, product, choices.of(product), found, readers, codes)
            entries.append(made or _entry(layer, choice, found, readers, codes))
        progress(done, len(others))
    convolutions, tensors = quantize_region(region, formats, found.ranges, found.means, codes)
    isolated = [(layer, formats.of("conv", str(layer.node.name))) for layer in region.isolated]
    isolated += [(layer, form) for layer, form, _ in region.stored]
    widened = tuple(stored_convolution(layer, form, found.means, codes) for layer, form in isolated)
    plan = QuantizationPlan(
        linears=tuple(entry for entry in entries if entry.op == "linear"),
        tables=tuple(entry for entry in entries if entry.op == "table"),
        others=tuple(entry for entry in entries if entry.op in ("lstm", "other")),
        convolutions=(*convolutions, *widened),
        tensors=tensors,
        left_in_float=tuple(kept),
    )
    if found.hessians is not None:
        found.hessians.restore(codes.noted)
    return plan, codes.arrays


def finds_ranges_at_run_time(layers: Sequence[Layer], region: QdqRegion, values: Mapping[str, float]) -> bool:
    """Whether products find their inputs' ranges at run time though the scheme has calibrated ones: where all
    convolutions run in float, which are most of the work, it costs next to nothing, and no input lies outside."""
    convolved = products([layer for layer, _, _ in region.stored if layer.op == "conv"], values)
    return not region.convolutions and convolved > multiplied(layers, values)


def _activations(layers: list[Layer]) -> dict[str, tuple[str, ...]]:
    """Of every weight of products, the activations that it multiplies."""
    readers: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        if layer.op == "linear":
            before = readers.get(layer.weight_name, ())
            readers[layer.weight_name] = tuple(dict.fromkeys((*before, layer.activation)))
    return readers


def tied_products(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Of each table, the product that multiplies with the very same values: a language model's output projection."""
    tables = {layer.weight_name: layer for layer in layers if layer.op == "table"}
    products = [layer for layer in layers if layer.op == "linear"]
    found: dict[str, Layer] = {}
    for name, table in tables.items():
        alike = [product for product in products if product.shape == table.shape[::-1]]
        same = [product for product in alike if _same_rows(product, table)]
        found |= {name: same[0]} if same else {}
    return found


def _same_rows(product: Layer, table: Layer) -> bool:
    """Whether the columns of one are the rows of the other; a few at a time, so that memory does not hold all."""
    if isinstance(product.stored, LazyMatrix) and isinstance(table.stored, LazyMatrix):
        return product.stored.matrix.transposed() == table.stored.matrix
    one, other = product.weight.T, table.weight
    step = max(1, _COMPARED // max(one.shape[1], 1))
    return all(np.array_equal(one[at : at + step], other[at : at + step]) for at in range(0, len(one), step))


def _tied_entry(
    layer: Layer,
    choice: Choice,
    product: Layer,
    other: Choice,
    found: Calibrated,
    readers: dict[str, tuple[str, ...]],
    codes: Codes,
) -> Entry | None:
    """The entry of a table whose rows are read from what its product stores; None if they cannot be."""
    if other.reason or not other.plain or not other.form.lends_rows(choice.form, layer.shape):
        return None
    made = _entry(product, other, found, readers, codes)
    return made.model_copy(
        update={
            **{"node": str(layer.node.name), "weight": layer.weight_name, "op": "table"},
            **{"shape": layer.shape, "stored_as": product.weight_name, "input": {}},
        }
    )


def _entry(layer: Layer, choice: Choice, found: Calibrated, readers: dict[str, tuple[str, ...]], codes: Codes) -> Entry:
    def curvature() -> Curvature | None:
        return found.hessians.curvature(readers[layer.weight_name]) if found.hessians else None

    form = choice.form
    learned = found.learned.get(layer.weight_name) if layer.op == "linear" else None

    def noted() -> dict[str, float]:
        return found.hessians.noted(readers.get(layer.weight_name, ())) if found.hessians else {}

    encoded = codes.encode(layer, form, Known(curvature, given=choice.given, learned=learned, noted=noted))
    if choice.given is not None:
        require_exact(layer, form.decode(layer.op, encoded, layer.shape))
        return entry_of(layer, form, encoded, given=True)
    if layer.op != "linear":
        return entry_of(layer, form, encoded)
    if form.integer_products and layer.activation in found.fixed:
        return entry_of(layer, form, encoded, input={"ranges": "none"})
    calibrated_ends = form.ranges == "calibrated" and not found.at_run_time
    ends = found.ranges[layer.activation] if calibrated_ends else None
    return entry_of(layer, form, encoded, input=form.input_parameters(ends))
