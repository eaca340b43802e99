"""Stage function: a float graph that computes the same, with outlier channels scaled down before they are rounded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from safetensors.numpy import load_file

from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Scheme
from pipeline.formats.format import Layer
from pipeline.graph.edit import add_constant, constant, drop_unused, emit
from pipeline.numerics.affine import Float
from pipeline.numerics.smoothing import smoothing_factors
from pipeline.quantize.calibrate import CHANNELS
from pipeline.quantize.fold_scales import fold_scales
from pipeline.quantize.layers import read_layers
from pipeline.quantize.parts import Part, joined, parts, save_parts


def run(context: StageContext) -> StageMetadata:
    """For each activation that feeds quantized products: 1/s on its channels before them, their weights' rows times s.

    1/s is a `Mul` only where the operators before cannot take it over: in a post-norm transformer, a normalization
    also feeds a residual sum. The metadata say how many activations there are, how many of them cost nothing, and how
    many of their channels calibration never saw active (see `smoothing_factors`).
    """
    scheme = Scheme.model_validate(context.config["scheme"])
    assert scheme.smoothing is not None  # noqa: S101  # the plan has this stage only then
    models: dict[str, ir.Model] = {}
    metadata = joined(_smoothed(part, scheme.smoothing, models) for part in parts(context))
    save_parts(context, models)
    return metadata


def _smoothed(part: Part, alpha: float, models: dict[str, ir.Model]) -> StageMetadata:
    """Of one graph, which is added to `models`."""
    context, model = part.context, part.load()
    magnitudes = load_file(context.inputs["channels"].file(CHANNELS))
    layers, _ = read_layers(context.inputs["layers"], model.graph)
    groups = groups_of([layer for layer in layers if layer.op == "linear"])
    absorbed = never_seen = 0
    for group in groups:
        largest = np.max([magnitudes[layer.activation] for layer in group], axis=0)
        factors = smoothing_factors(largest, [layer.weight for layer in group], alpha)
        absorbed += _smooth(group, factors)
        never_seen += int(np.count_nonzero(largest == 0))
    models[part.spec.name] = model
    activations = {layer.activation for group in groups for layer in group}
    return {
        "alpha": alpha,
        "activations": len(activations),
        "absorbed": absorbed,
        "channels": sum(group[0].shape[0] for group in groups),
        "never_seen": never_seen,
    }


def groups_of(layers: list[Layer]) -> list[list[Layer]]:
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


def _smooth(group: list[Layer], factors: Float) -> bool:
    """Whether the operators before took the factors over."""
    inverse = (1 / factors).astype(np.float32)
    activation = group[0].node.inputs[0]
    assert activation is not None  # noqa: S101  # a product has two inputs
    alone = len({layer.activation for layer in group}) == 1
    absorbed = alone and fold_scales(activation, inverse, len(group))
    smoothed: dict[str, ir.Value] = {}
    for layer in group:
        if not absorbed:
            _multiply(layer, inverse, smoothed)
        scale_rows(layer, factors)
    return absorbed


def _multiply(layer: Layer, inverse: Float, smoothed: dict[str, ir.Value]) -> None:
    """Let the layer read its activation times `inverse`, which readers of the same one share in `smoothed`."""
    name, node = layer.activation, layer.node
    activation, graph = node.inputs[0], node.graph
    assert activation is not None and isinstance(graph, ir.Graph)  # noqa: S101
    if name not in smoothed:
        factor = add_constant(graph, f"{node.name}.smoothing", inverse)
        (smoothed[name],) = emit(node, "Mul", [activation, factor], [f"{name}.smoothed"])
    node.replace_input_with(0, smoothed[name])


def scale_rows(layer: Layer, factors: Float) -> None:
    """From what the weight is now: factors of an activation behind the layer may have gone into its columns."""
    weight, graph = layer.node.inputs[1], layer.node.graph
    array = constant(weight)
    assert weight is not None and array is not None and isinstance(graph, ir.Graph)  # noqa: S101
    scaled = add_constant(graph, f"{layer.weight_name}.smoothed", array * factors[:, None])
    layer.node.replace_input_with(1, scaled)
    drop_unused(graph, [weight])
