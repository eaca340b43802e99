"""What 8 bits lose of each convolution alone: one run of the float graph, in which every convolution runs beside its
rounded forms on the same inputs.

The noise of a layer is held against each output channel's own signal too. A sum over channels hides what rounding
ruins: of a spectrum, the loud frequencies keep their values while the quiet ones become noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.data.samples import Samples
from pipeline.formats.format import Arrays, Known, Layer, NumberFormat
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.edit import add_constant, name_of
from pipeline.numerics.affine import Float, affine_uint8, is_empty
from pipeline.quantize.conv import stored_form
from pipeline.quantize.qdq_region import QdqRegion

SAMPLES = 32
"""Losses of healthy and of ruined layers differ by factors: more samples change no verdict."""
Sums: TypeAlias = NDArray[np.float64]
_PARTS = ("signal", "integers", "stored")


def attach_losses(
    graph: ir.Graph, region: QdqRegion, formats: SchemeFormats, ranges: Arrays
) -> dict[str, tuple[str, str, str]]:
    """Let a float graph give out what `convolution_losses` needs, and nothing else: the names of three outputs for
    every convolution of the region, by its node's name. `ranges`: (low, high) of the tensors that the region observes;
    a convolution whose input was never active has none."""
    layers = [layer for layer in region.convolutions if not is_empty(*map(float, ranges[_source(layer, region)]))]
    outputs = {str(layer.node.name): _attach(graph, layer, ranges[_source(layer, region)], formats) for layer in layers}
    graph.outputs.clear()
    for value in (value for made in outputs.values() for value in made):
        value.dtype = ir.DataType.FLOAT
        graph.outputs.append(value)
    return {name: (name_of(a), name_of(b), name_of(c)) for name, (a, b, c) in outputs.items()}


def convolution_losses(
    session: ort.InferenceSession, outputs: Mapping[str, tuple[str, str, str]], samples: Samples
) -> dict[str, tuple[float, float]]:
    """The share of its power that noise has (see `lost_share`), of every convolution by its node's name: if it runs in
    integers, and if only its weight is stored in 8 bits. `session`: of a graph with the outputs of `attach_losses`."""
    sums = _summed(session, [name for names in outputs.values() for name in names], samples)
    return {
        node: (lost_share(sums[signal], sums[integers]), lost_share(sums[signal], sums[stored]))
        for node, (signal, integers, stored) in outputs.items()
    }


def lost_share(signal: Sums, noise: Sums) -> float:
    """Noise over signal, of all channels together or in the mean over channels, each at most 1: the larger of both.
    Channels without a signal do not count. Both are sums of squares, float64 [channels]."""
    active = signal > 0
    if not active.any():
        return 0.0
    noise, signal = noise[active], signal[active]
    return float(max(np.minimum(1.0, noise / signal).mean(), min(1.0, noise.sum() / signal.sum())))


def evenly_spaced(count: int) -> list[int]:
    """The positions of the samples that are looked at: of a sequence, steps from all of it."""
    return np.unique(np.linspace(0, count - 1, min(SAMPLES, count)).round().astype(int)).tolist()


def _source(layer: Layer, region: QdqRegion) -> str:
    return region.tensors[layer.activation]


def _summed(session: ort.InferenceSession, names: Sequence[str], samples: Samples) -> Mapping[str, Sums]:
    chosen = samples.part(evenly_spaced(len(samples)))
    rows = chosen.select([entry.name for entry in session.get_inputs()])
    sums = {name: np.zeros(1) for name in names}
    for row in rows:
        for name, value in zip(names, session.run(names, row), strict=True):
            sums[name] = sums[name] + value.astype(np.float64)
    return sums


def _attach(graph: ir.Graph, layer: Layer, ends: NDArray[Any], formats: SchemeFormats) -> list[ir.Value]:
    """Behind the graph: sums of squares [channels] of what a convolution puts out (less its bias), of what integers
    change about it, and of what the stored weight does."""
    node, read = layer.node, layer.node.inputs[0]
    assert read is not None  # noqa: S101
    integer, kept = formats.of("conv", str(node.name)), stored_form(formats)
    exact = _convolve(graph, layer, read, layer.weight, _PARTS[0])
    rounded = _convolve(graph, layer, _rounded(graph, layer, read, ends), _coded(integer, layer), _PARTS[1])
    difference = _appended(graph, "Sub", [exact, rounded], f"{node.name}.{_PARTS[1]}.noise")
    change = _convolve(graph, layer, read, layer.weight - _coded(kept, layer), _PARTS[2])
    axes = add_constant(graph, f"{node.name}.loss.axes", np.array([0, *range(2, layer.weight.ndim)], np.int64))
    return [
        _appended(graph, "ReduceSumSquare", [value, axes], f"{node.name}.{part}.power", keepdims=0)
        for part, value in zip(_PARTS, (exact, difference, change), strict=True)
    ]


def _coded(form: NumberFormat, layer: Layer) -> Float:
    return form.decode("conv", form.encode("conv", layer.weight, Known()), layer.weight.shape)


def _convolve(graph: ir.Graph, layer: Layer, read: ir.Value, weight: Float, part: str) -> ir.Value:
    name = f"{layer.node.name}.{part}"
    given = {key: attribute.value for key, attribute in layer.node.attributes.items()}
    return _appended(graph, "Conv", [read, add_constant(graph, f"{name}.weight", weight)], name, **given)


def _rounded(graph: ir.Graph, layer: Layer, read: ir.Value, ends: NDArray[Any]) -> ir.Value:
    name = f"{layer.node.name}.input"
    scale, zero = affine_uint8(float(ends[0]), float(ends[1]))
    constants = [
        add_constant(graph, f"{name}.scale", np.float32(scale)),  # type: ignore[arg-type]
        add_constant(graph, f"{name}.zero", np.uint8(zero)),  # type: ignore[arg-type]
    ]
    codes = _appended(graph, "QuantizeLinear", [read, *constants], f"{name}.codes")
    return _appended(graph, "DequantizeLinear", [codes, *constants], f"{name}.rounded")


def _appended(graph: ir.Graph, op: str, inputs: Sequence[ir.Value], name: str, **attributes: Any) -> ir.Value:
    node = ir.node(op, inputs, attributes, name=name)
    graph.append(node)
    node.outputs[0].name = name
    return node.outputs[0]
