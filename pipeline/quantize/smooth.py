"""Stage function: a float graph that computes the same, with outlier channels scaled down before they are rounded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from safetensors.numpy import load_file

from pipeline.core.stage import StageContext
from pipeline.core.types import Json, Scheme
from pipeline.numerics.affine import Float
from pipeline.numerics.smoothing import smoothing_factors
from pipeline.quantize.calibrate import CHANNELS
from pipeline.quantize.layers import Layer, find_layers
from pipeline.trace.graph import MODEL, add_constant, drop_unused, emit, load_model, save_model


def run(context: StageContext) -> dict[str, Json]:
    """For each activation that feeds quantized products: one `Mul` by 1/s before them, their weights' rows times s.

    The Mul stays explicit: in a post-norm transformer the same activation also feeds a residual sum, so that s
    cannot be folded into the normalization before it.
    """
    scheme = Scheme.model_validate(context.config["scheme"])
    assert scheme.smoothing is not None  # noqa: S101  # the plan has this stage only then
    model = load_model(context.inputs["graph"].file(MODEL))
    magnitudes = load_file(context.inputs["channels"].file(CHANNELS))
    layers, _ = find_layers(model.graph, scheme.nodes_to_exclude)
    groups = _groups([layer for layer in layers if layer.op == "linear"])
    for group in groups:
        largest = np.max([magnitudes[layer.activation] for layer in group], axis=0)
        _smooth(group, smoothing_factors(largest, [layer.weight for layer in group], scheme.smoothing))
    save_model(model, context.out / MODEL)
    return {"alpha": scheme.smoothing, "activations": len({layer.activation for group in groups for layer in group})}


def _groups(layers: list[Layer]) -> list[list[Layer]]:
    """Products that must have the same factors, since they read the same activation or the same weight."""
    groups: list[list[Layer]] = []
    for layer in layers:
        apart, joined = [], [layer]
        for group in groups:
            if any(other.activation == layer.activation or other.weight_name == layer.weight_name for other in group):
                joined = [*group, *joined]
            else:
                apart.append(group)
        groups = [*apart, joined]
    return groups


def _smooth(group: list[Layer], factors: Float) -> None:
    smoothed: dict[str, ir.Value] = {}
    for layer in group:
        name, node = layer.activation, layer.node
        activation, weight, graph = node.inputs[0], node.inputs[1], node.graph
        assert activation is not None and weight is not None and isinstance(graph, ir.Graph)  # noqa: S101
        if name not in smoothed:
            inverse = add_constant(graph, f"{node.name}.smoothing", (1 / factors).astype(np.float32))
            (smoothed[name],) = emit(node, "Mul", [activation, inverse], [f"{name}.smoothed"])
        scaled = add_constant(graph, f"{layer.weight_name}.smoothed", layer.weight * factors[:, None])
        node.replace_input_with(0, smoothed[name])
        node.replace_input_with(1, scaled)
        drop_unused(graph, [weight])
