"""Stage function: decide the number format of every weight, and compute codes and scales. Writes no ONNX."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext
from pipeline.core.types import Json, Progress, Scheme
from pipeline.numerics.affine import affine_uint8, is_empty, largest_code, quantize_symmetric
from pipeline.numerics.gptq import Curvature
from pipeline.quantize.blocks import linear_format, store_linear, store_table, store_widened, table_format
from pipeline.quantize.calibrate import MEANS, RANGES
from pipeline.quantize.conv import beyond_half, quantize_region, region_of, spread
from pipeline.quantize.hessians import Hessians
from pipeline.quantize.layers import Layer, LeftInFloat, find_layers
from pipeline.quantize.plan import LeftEntry, LinearEntry, QuantizationPlan, TableEntry
from pipeline.quantize.region import Region, landing
from pipeline.trace.graph import MODEL, load_model, name_of

PLAN = "plan.json"
CODES = "codes.safetensors"
SENSITIVE = "sensitive.json"
"""Node -> why it stays in float."""
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Calibrated:
    """(low, high) per tensor, the mean of every channel of the convolutions' inputs, and the Hessians of products."""

    ranges: Arrays = field(default_factory=dict)
    means: Arrays = field(default_factory=dict)
    hessians: Hessians | None = None


def run(context: StageContext) -> dict[str, Json]:
    """Writes `plan.json` (QuantizationPlan) and `codes.safetensors` (`<weight>.codes`, `<weight>.scales`)."""
    scheme = Scheme.model_validate(context.config["scheme"])
    graph = load_model(context.inputs["graph"].file(MODEL)).graph
    layers, left = find_layers(graph, scheme.nodes_to_exclude)
    layers, sensitive = _split(layers, context)
    found = calibrated(context)
    layers, unseen = _without_unseen(layers, found.ranges)
    region = region_of(graph, layers, scheme)
    left = [*left, *sensitive, *unseen, *region.left]
    plan, arrays = decide(layers, left, region, scheme, found, context.progress)
    if not sensitive:
        _refuse_nothing(plan, scheme, bool(layers))
    save_file(arrays, context.out / CODES)
    (context.out / PLAN).write_text(pretty_json(plan.model_dump(mode="json")), encoding="utf-8")
    return {
        "linears": len(plan.linears),
        "tables": len(plan.tables),
        "convolutions": len(plan.convolutions),
        "float32_scales": _wider_scales(plan, scheme),
        "never_active": sorted(name for name, ends in found.ranges.items() if is_empty(*map(float, ends))),
        **({"damping": found.hessians.damping} if found.hessians else {}),
        "left_in_float": [entry.model_dump(mode="json") for entry in plan.left_in_float],
    }


def _wider_scales(plan: QuantizationPlan, scheme: Scheme) -> list[str]:
    """Weights in blocks whose scales are wider than the scheme says."""
    entries: tuple[LinearEntry | TableEntry, ...] = (*plan.linears, *plan.tables)
    return [entry.weight for entry in entries if entry.block_size and entry.scale_bits > scheme.scale_bits]


def _refuse_nothing(plan: QuantizationPlan, scheme: Scheme, others: bool) -> None:
    """A scheme that takes no weight at all would hand out the float model under its own name. `others`: whether another
    scheme may take some."""
    if plan.linears or plan.tables or plan.convolutions:
        return
    reasons = Counter(entry.reason for entry in plan.left_in_float)
    said = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
    raise StageError(
        f"The scheme {scheme.name!r} takes none of the model's weights: "
        + (said or "no product, convolution, table or recurrent layer reads a constant matrix of float32")
        + ".",
        "Choose a scheme that has operators for this model (`edge recipes` lists them), or fp32."
        if others
        else "No other scheme does: export it as it is, with --recipe fp32.",
    )


def _split(layers: list[Layer], context: StageContext) -> tuple[list[Layer], list[LeftInFloat]]:
    """Layers to round, and those that their measured sensitivity leaves in float."""
    reasons = context.inputs["sensitivity"].read_json(SENSITIVE) if "sensitivity" in context.inputs else {}
    kept = [layer for layer in layers if layer.node.name not in reasons]
    left = [
        LeftInFloat(layer.weight_name, layer.node.op_type, layer.weight.nbytes, reasons[layer.node.name])
        for layer in layers
        if layer.node.name in reasons
    ]
    return kept, left


def _without_unseen(layers: list[Layer], ranges: Arrays) -> tuple[list[Layer], list[LeftInFloat]]:
    """Layers to round, and the convolutions around a tensor that calibration never saw active: no range is known, and
    one of nothing would make a later input zero. (Products find their range at run time then: see `_integer`.)"""
    empty = {name for name, ends in ranges.items() if is_empty(*map(float, ends))}
    unseen = {id(layer) for layer in layers if layer.op == "conv" and empty.intersection(_ends(layer))}
    reason = "its input or its output is zero on every calibration sample, so that no range is known"
    left = [
        LeftInFloat(layer.weight_name, layer.node.op_type, layer.weight.nbytes, reason)
        for layer in layers
        if id(layer) in unseen
    ]
    return [layer for layer in layers if id(layer) not in unseen], left


def _ends(layer: Layer) -> tuple[str, str]:
    return layer.activation, name_of(landing(layer.node.outputs[0]))


def calibrated(context: StageContext) -> Calibrated:
    """What calibration found, for every tensor that may be rounded; nothing for schemes that need nothing."""
    hessians = Hessians(context.inputs["hessians"]) if "hessians" in context.inputs else None
    if "ranges" not in context.inputs:
        return Calibrated(hessians=hessians)
    artifact = context.inputs["ranges"]
    scheme = Scheme.model_validate(context.config["scheme"])
    graph = load_model(context.inputs["graph"].file(MODEL)).graph
    whole = region_of(graph, find_layers(graph, scheme.nodes_to_exclude)[0], scheme)
    return Calibrated(spread(load_file(artifact.file(RANGES)), whole), load_file(artifact.file(MEANS)), hessians)


def decide(
    layers: list[Layer],
    left: list[LeftInFloat],
    region: Region,
    scheme: Scheme,
    found: Calibrated,
    progress: Progress,
) -> tuple[QuantizationPlan, Arrays]:
    """The plan for `layers`, whose convolutions are those of `region`, and its arrays."""
    others = [layer for layer in layers if layer.op != "conv"]
    plan, arrays = quantize_layers(others, left, scheme, found, progress)
    convolutions, tensors, more = quantize_region(region, scheme, found.ranges, found.means)
    return plan.model_copy(update={"convolutions": convolutions, "tensors": tensors}), {**arrays, **more}


def quantize_layers(
    layers: list[Layer],
    left: list[LeftInFloat],
    scheme: Scheme,
    found: Calibrated,
    progress: Progress,
) -> tuple[QuantizationPlan, Arrays]:
    """The plan and its arrays. A weight read by several nodes is stored once."""
    linears: list[LinearEntry] = []
    tables: list[TableEntry] = []
    kept = [LeftEntry(weight=e.weight_name, op_type=e.op_type, bytes=e.bytes, reason=e.reason) for e in left]
    arrays: Arrays = {}
    readers = _activations(layers)
    for done, layer in enumerate(layers, start=1):
        bits = scheme.weights if layer.op == "linear" else scheme.embeddings
        reason = _reason(layer, scheme, bits)
        if reason:
            kept.append(_left(layer, reason))
        elif layer.op == "table":
            tables.append(_table(layer, scheme, arrays))
        elif bits == 8 and scheme.activations != "float":
            linears.append(_integer(layer, scheme, found.ranges, arrays))
        else:
            inputs = found.hessians.curvature(readers[layer.weight_name]) if found.hessians else None
            if scheme.activations == "float":
                linears.append(_weight_only(layer, scheme, inputs, arrays))
            else:
                linears.append(_widened(layer, scheme, inputs, found.ranges, arrays))
        progress(done, len(layers))
    return QuantizationPlan(linears=tuple(linears), tables=tuple(tables), left_in_float=tuple(kept)), arrays


def _activations(layers: list[Layer]) -> dict[str, tuple[str, ...]]:
    """Of every weight of products, the activations that it multiplies."""
    readers: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        if layer.op == "linear":
            before = readers.get(layer.weight_name, ())
            readers[layer.weight_name] = tuple(dict.fromkeys((*before, layer.activation)))
    return readers


def _reason(layer: Layer, scheme: Scheme, bits: int) -> str:
    """Why the scheme leaves this layer in float; empty if it does not."""
    if bits == 32:
        return f"the scheme {scheme.name} keeps {'weights' if layer.op == 'linear' else 'embeddings'} in float"
    columns = layer.weight.shape[1]
    if layer.op == "table" and bits == 4 and columns % 2:
        return f"its rows have {columns} values: two 4-bit codes share a byte, so that the number must be even"
    return beyond_half(layer.weight) if bits == 16 else ""


def _left(layer: Layer, reason: str) -> LeftEntry:
    return LeftEntry(weight=layer.weight_name, op_type=layer.node.op_type, bytes=layer.weight.nbytes, reason=reason)


def _weight_only(layer: Layer, scheme: Scheme, inputs: Curvature | None, arrays: Arrays) -> LinearEntry:
    """Rounded weights, float activations."""
    name, entry = layer.weight_name, _entry(layer)
    if scheme.weights == 16:
        arrays[f"{name}.codes"] = layer.weight.astype(np.float16)
        return LinearEntry(method="half", bits=16, **entry)
    form = linear_format(scheme, layer.weight)
    if f"{name}.codes" not in arrays:
        store_linear(name, layer.weight, form, inputs, arrays)
    return LinearEntry(
        method="block",
        bits=form.bits,
        block_size=form.size,
        scale_bits=form.scale_bits,
        accuracy_level=scheme.accuracy_level,
        **entry,
    )


def _widened(layer: Layer, scheme: Scheme, inputs: Curvature | None, ranges: Arrays, arrays: Arrays) -> LinearEntry:
    """4-bit weights that become 8-bit ones when the model is loaded, 8-bit activations."""
    name, form = layer.weight_name, linear_format(scheme, layer.weight)
    if f"{name}.codes" not in arrays:
        store_widened(name, layer.weight, form, inputs, largest_code(scheme.reduce_range), arrays)
    return LinearEntry(
        bits=4,
        block_size=form.size,
        scale_bits=form.scale_bits,
        **_rounding(layer, scheme, ranges),
        **_entry(layer),
    )


def _integer(layer: Layer, scheme: Scheme, ranges: Arrays, arrays: Arrays) -> LinearEntry:
    """8-bit weights and activations."""
    axis = 0 if scheme.per_channel else None
    codes, scale = quantize_symmetric(layer.weight, axis, scheme.reduce_range)
    arrays[f"{layer.weight_name}.codes"], arrays[f"{layer.weight_name}.scales"] = codes, scale.reshape(-1)
    return LinearEntry(**_rounding(layer, scheme, ranges), **_entry(layer))


def _rounding(layer: Layer, scheme: Scheme, ranges: Arrays) -> dict[str, Any]:
    """How the layer's input is rounded. One that calibration never saw active has no range: it is found at run time,
    whatever the scheme."""
    low, high = ranges[layer.activation] if scheme.activations == "static" else (0.0, 0.0)
    if is_empty(float(low), float(high)):
        return {"method": "dynamic"}
    scale, zero_point = affine_uint8(float(low), float(high))
    return {"method": "static", "activation_scale": float(scale), "activation_zero_point": int(zero_point)}


def _entry(layer: Layer) -> dict[str, Any]:
    rows, columns = layer.weight.shape
    return {"node": layer.node.name, "weight": layer.weight_name, "k": rows, "n": columns}


def _table(layer: Layer, scheme: Scheme, arrays: Arrays) -> TableEntry:
    node, name = str(layer.node.name), layer.weight_name
    if scheme.embeddings == 16:
        arrays[f"{name}.codes"] = layer.weight.astype(np.float16)
        return TableEntry(node=node, weight=name, bits=16)
    if scheme.embeddings == 4:
        form = table_format(scheme, layer.weight)
        store_table(name, layer.weight, form, arrays)
        return TableEntry(node=node, weight=name, bits=4, block_size=form.size, scale_bits=form.scale_bits)
    codes, scale = quantize_symmetric(layer.weight, 1, reduce_range=False)  # no product, so nothing can saturate
    arrays[f"{name}.codes"], arrays[f"{name}.scales"] = codes, scale
    return TableEntry(node=node, weight=name, bits=8)
