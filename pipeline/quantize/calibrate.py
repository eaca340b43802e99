"""Calibration: run samples through the float graph and reduce activations to ranges as they stream by.

Memory does not grow with the number of samples: a sample's activations are reduced (in the graph where the
observer allows it) before the next one is read. What was seen is saved now and then, so that a calibration that was
killed goes on where it was, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pipeline.core.artifact import Artifact
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Progress, Scheme
from pipeline.data.samples import Samples, open_samples
from pipeline.formats.format import Layer
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.files import saved
from pipeline.numerics.affine import is_empty
from pipeline.quantize.checkpoint import Checkpoint
from pipeline.quantize.conv import region_of
from pipeline.quantize.given import GivenCodes, given_codes
from pipeline.quantize.heads import formats_of
from pipeline.quantize.hessians import HESSIANS, HessianObserver, add_values
from pipeline.quantize.layers import read_layers
from pipeline.quantize.losses import attach_losses, layer_losses, pieces, rounded_layers
from pipeline.quantize.observers import ChannelMax, ChannelMean, Values
from pipeline.quantize.parts import Part, for_each
from pipeline.quantize.schemes import OBSERVERS
from pipeline.quantize.segmented import segmented_hessians
from pipeline.runtime.batches import batches
from pipeline.runtime.behaviour import independent
from pipeline.runtime.session import are_large

RANGES = "ranges.safetensors"
CHANNELS = "channels.safetensors"
MEANS = "means.safetensors"
VALUES = "values.safetensors"
LOSSES = "losses.safetensors"
_SCRATCH = "observed.onnx"
_BATCH = 8
_VALUES = 192
"""Three inputs of 64 tokens: the activations that are watched stay alive together, so that a batch must not take more
memory than one long text does."""
Watched = tuple[str, type]
"""A tensor and the observer that reads it."""


def ranges(context: StageContext) -> StageMetadata:
    """Stage function: (low, high) of every tensor that will be rounded, float32 [2] each; the mean of every channel of
    the convolutions' inputs, float32 [channels] each, where biases are to be corrected; how many values the tensors
    around convolutions and the inputs of products have over all samples, float64 [1] each; and what layers would lose
    in 8 bits, float64 [2] each (see `losses`)."""
    return for_each(context, _ranges)


def channels(context: StageContext) -> StageMetadata:
    """Stage function: the largest magnitude per channel of the products' inputs, float32 [K] per tensor."""
    return for_each(context, _channels)


def hessians(context: StageContext) -> StageMetadata:
    """Stage function: sum x x^T over the rows x of the same tensors, float32 [K, K] per tensor; not of products whose
    codes the checkpoint has."""
    given = given_codes(context)
    return for_each(context, lambda part: _hessians(part, given))


def seen_ranges(artifact: Artifact) -> dict[str, NDArray[Any]]:
    """What the stage `ranges` found: (low, high) of every tensor that was not zero on all samples."""
    ranges = load_file(artifact.file(RANGES))
    return {name: ends for name, ends in ranges.items() if not is_empty(*map(float, ends))}


def _ranges(part: Part) -> StageMetadata:
    context = part.context
    scheme = Scheme.model_validate(context.config["scheme"])
    formats = formats_of(scheme, read_layers(context.inputs["layers"], part.load().graph)[0])
    observer = OBSERVERS.get(scheme.observer)

    def watch(graph: ir.Graph, layers: list[Layer]) -> list[Watched]:
        region = region_of(graph, layers, formats)
        names = dict.fromkeys([*_linear_inputs(layers), *region.observed])
        inputs = dict.fromkeys(layer.activation for layer in region.convolutions if scheme.bias_correction)
        counted = dict.fromkeys([*region.tensors, *_linear_inputs(layers)] if scheme.everywhere is None else [])
        return [
            *((name, observer) for name in names),
            *((name, ChannelMean) for name in inputs),
            *((name, Values) for name in counted),
        ]

    observed = _observe(part, watch, scheme.percentile)
    found = {name: seen.range() for (name, kind), seen in observed.items() if kind is observer}
    means = {name: seen.mean() for (name, kind), seen in observed.items() if kind is ChannelMean}
    values = {name: np.array([seen.total]) for (name, kind), seen in observed.items() if kind is Values}
    save_file(values, context.out / VALUES)
    save_file({name: np.array(ends, np.float32) for name, ends in found.items()}, context.out / RANGES)
    save_file(means, context.out / MEANS)
    totals = {name: float(total[0]) for name, total in values.items()}
    lost = _losses(part, formats, found, totals) if scheme.everywhere is None else {}
    save_file(lost, context.out / LOSSES)
    return {"observer": scheme.observer, "tensors": len(found), "samples": len(_samples(context))}


def _losses(
    part: Part, formats: SchemeFormats, ranges: Mapping[str, Any], values: Mapping[str, float]
) -> dict[str, NDArray[np.float64]]:
    arrays = {name: np.array(ends, np.float32) for name, ends in ranges.items()}

    def rounded(graph: ir.Graph) -> list[tuple[Layer, NDArray[Any]]]:
        layers, _ = read_layers(part.context.inputs["layers"], graph)
        return rounded_layers(layers, region_of(graph, layers, formats, values), formats, arrays)

    lost: dict[str, tuple[float, float]] = {}
    for piece in pieces([layer.nbytes for layer, _ in rounded(part.load().graph)]):
        model = part.load()
        outputs = attach_losses(model.graph, rounded(model.graph)[piece], formats)
        with saved(model, part.context.out / _SCRATCH) as path:
            lost |= layer_losses(part.session(path, mem_pattern=False), outputs, _samples(part.context))
    return {name: np.array(shares) for name, shares in lost.items()}


def _channels(part: Part) -> StageMetadata:
    context = part.context
    widths: dict[str, int] = {}

    def watch(_: ir.Graph, layers: list[Layer]) -> list[Watched]:
        widths.update({layer.activation: layer.shape[0] for layer in layers if layer.op == "linear"})
        return [(name, ChannelMax) for name in _linear_inputs(layers)]

    observed = _observe(part, watch)
    never = {name: np.zeros(width, np.float32) for name, width in widths.items()}
    found = {name: seen.magnitude for (name, _), seen in observed.items() if seen.magnitude is not None}
    save_file(never | found, context.out / CHANNELS)
    return {"tensors": len(observed), "samples": len(_samples(context))}


def _hessians(part: Part, given: GivenCodes) -> StageMetadata:
    context = part.context

    def watch(_: ir.Graph, layers: list[Layer]) -> list[Watched]:
        rounded = [layer for layer in layers if given.of(layer) is None]
        return [(name, HessianObserver) for name in _linear_inputs(rounded)]

    if are_large(part.graphs):
        return _large_hessians(part)
    observed = _observe(part, watch)
    save_file({name: seen.hessian() for (name, _), seen in observed.items()}, context.out / HESSIANS)
    return {"tensors": len(observed), "samples": len(_samples(context))}


def _large_hessians(part: Part) -> StageMetadata:
    layers, _ = read_layers(part.context.inputs["layers"], part.load().graph)
    widths = {layer.activation: layer.shape[0] for layer in layers if layer.op == "linear"}
    samples, batch = _samples(part.context), _BATCH if independent(part.context.inputs) else 1
    segmented_hessians(part, widths, samples, batch, _VALUES)
    return {"tensors": len(widths), "samples": len(samples)}


def _linear_inputs(layers: list[Layer]) -> list[str]:
    return list(dict.fromkeys(layer.activation for layer in layers if layer.op == "linear"))


def _samples(context: StageContext) -> Samples:
    return open_samples(context.inputs["samples"].path)


def _observe(
    part: Part, watch: Callable[[ir.Graph, list[Layer]], list[Watched]], percentile: float = 100.0
) -> dict[Watched, Any]:
    """`percentile`: what a range holds; observers of other things take no notice."""
    context, model = part.context, part.load()
    layers, _ = read_layers(context.inputs["layers"], model.graph)
    watched = watch(model.graph, layers)
    if not watched:  # ONNX Runtime runs no graph without outputs
        return {}
    outputs = _attach(model, watched)
    observers = {key: key[1](percentile) for key in watched}
    batch = _BATCH if independent(context.inputs) else 1
    with saved(model, context.out / _SCRATCH) as path:
        session = part.session(path, mem_pattern=False)  # lengths differ: plans would only pile up
        _stream(session, outputs, observers, Checkpoint(context.scratch), _samples(context), context.progress, batch)
    return observers


def _attach(model: ir.Model, watched: Sequence[Watched]) -> dict[Watched, list[str]]:
    """Make the graph give out what the observers read, and nothing else; their extra outputs."""
    graph = model.graph
    values = {str(output.name): output for node in graph for output in node.outputs}
    values |= {str(value.name): value for value in graph.inputs}
    outputs: dict[Watched, list[ir.Value]] = {
        (name, kind): kind.attach(graph, values[name])  # type: ignore[attr-defined]
        for name, kind in watched
    }
    graph.outputs.clear()
    for extra in (value for group in outputs.values() for value in group):
        extra.dtype = ir.DataType.FLOAT
        graph.outputs.append(extra)
    return {key: [str(value.name) for value in group] for key, group in outputs.items()}


def _stream(
    session: ort.InferenceSession,
    outputs: dict[Watched, list[str]],
    observers: dict[Watched, Any],
    checkpoint: Checkpoint,
    samples: Samples,
    progress: Progress,
    batch: int,
) -> None:
    wanted = [name for group in outputs.values() for name in group]
    done = checkpoint.restore(list(observers.values()))
    for positions, inputs in batches(session, samples, batch, done, _VALUES):
        values = dict(zip(wanted, session.run(wanted, inputs), strict=True))
        for key, group in outputs.items():
            add_values(observers[key], key[0], [values[output] for output in group], positions)
        done += len(positions)
        progress(done, len(samples))
        checkpoint.save(done, list(observers.values()))
