"""Stage function: a float graph that computes the same, with outlier channels scaled down before they are rounded."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from safetensors.numpy import load_file

from pipeline.core.stage import StageContext
from pipeline.core.types import Json, Scheme
from pipeline.export.graph import MODEL, add_constant, drop_unused, emit, load_model, save_model
from pipeline.numerics.smoothing import smoothing_factors
from pipeline.quantize.calibrate import CHANNELS
from pipeline.quantize.layers import Layer, find_layers


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
    readers: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        if layer.op == "linear":
            readers[layer.activation].append(layer)
    for name, group in readers.items():
        _smooth(group, smoothing_factors(magnitudes[name], [layer.weight for layer in group], scheme.smoothing))
    save_model(model, context.out / MODEL)
    return {"alpha": scheme.smoothing, "activations": len(readers)}


def _smooth(readers: list[Layer], factors: np.ndarray) -> None:
    first = readers[0].node
    activation = first.inputs[0]
    graph = first.graph
    assert activation is not None and graph is not None  # noqa: S101
    inverse = add_constant(graph, f"{activation.name}.smoothing", (1 / factors).astype(np.float32))
    (smoothed,) = emit(first, "Mul", [activation, inverse], [f"{activation.name}.smoothed"])
    for layer in readers:
        weight = layer.node.inputs[1]
        assert weight is not None  # noqa: S101
        scaled = add_constant(graph, f"{layer.weight_name}.smoothed", layer.weight * factors[:, None])
        layer.node.replace_input_with(0, smoothed)
        layer.node.replace_input_with(1, scaled)
        drop_unused(graph, [weight])
