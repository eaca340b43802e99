"""The same models by ONNX Runtime's own quantizers, and all timed in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.real import judge

Array = NDArray[Any]
_DYNAMIC = {"MatMul", "Gemm", "LSTM", "Attention", "Gather"}


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Iterator[dict[str, Array]]) -> None:
        self.feeds = feeds

    def get_next(self) -> dict[str, Array] | None:
        return next(self.feeds, None)


def preprocessed(file: Path, place: Path) -> Path:
    """With shapes and folded constants where ONNX Runtime's own preparation can, else as it is; at an opset that knows
    scales per channel."""
    file = _raised(file, place.with_name("raised.onnx"))
    for symbolic in (False, True):
        try:
            quant_pre_process(str(file), str(place), skip_symbolic_shape=not symbolic, auto_merge=True)
        except Exception as error:  # noqa: BLE001  # whatever the peer trips over, we say so and go on
            print(f"  peer: preparing {'with' if symbolic else 'without'} symbolic shapes: {_first_line(error)}")
        else:
            return place
    return file


def _raised(file: Path, place: Path) -> Path:
    model = onnx.load(file)
    if next(opset.version for opset in model.opset_import if not opset.domain) >= 13:
        return file
    onnx.save(version_converter.convert_version(model, 17), place)
    return place


def static(file: Path, feeds: Sequence[Mapping[str, Array]], place: Path) -> Path:
    """QDQ, per channel, uint8 activations by MinMax, int8 weights, as the documentation advises for VNNI."""
    quantize_static(
        str(file),
        str(place),
        _Reader(iter([dict(feed) for feed in feeds])),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return place


def dynamic(file: Path, place: Path) -> Path:
    """Per channel, of matrix products and recurrent layers: convolutions run slower so."""
    quantize_dynamic(
        str(file),
        str(place),
        op_types_to_quantize=sorted(_DYNAMIC),
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"EnableSubgraph": True},
    )
    return place


def wants_dynamic(file: Path) -> bool:
    """Are most of the weights in layers that dynamic quantization takes?"""
    taken = every = 0
    for graph in _graphs(onnx.load(file).graph):
        sizes = {value.name: int(np.prod(value.dims)) for value in graph.initializer}
        of_layers = {name for node in graph.node if node.op_type in _DYNAMIC for name in node.input if name in sizes}
        taken, every = taken + sum(sizes[name] for name in of_layers), every + sum(sizes.values())
    return taken >= 0.5 * max(1, every)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _quantized(file: Path) -> bool:
    """Does any operator compute with integers or read them?"""
    nodes = (node.op_type for graph in _graphs(onnx.load(file).graph) for node in graph.node)
    return any("Integer" in name or "DequantizeLinear" in name or "DynamicQuantize" in name for name in nodes)


def made(file: Path, samples: judge.Samples, scratch: Path) -> dict[str, Path]:
    """The peers' files by their names; what a peer could not do is told and left out."""
    found: dict[str, Path] = {}
    ready = preprocessed(file, scratch / "prepared.onnx")
    makers = {"static": lambda: static(ready, _with_states(file, samples), scratch / "static.onnx")}
    if wants_dynamic(ready):
        makers["dynamic"] = lambda: dynamic(ready, scratch / "dynamic.onnx")
    for name, make in makers.items():
        try:
            written = make()
            judge.answers(judge.session(written), _one(samples))
        except Exception as error:  # noqa: BLE001  # as above
            print(f"  peer: {name}: {_first_line(error)}")
        else:
            if _quantized(written):
                found[name] = written
            else:
                print(f"  peer: {name}: quantizes nothing")
    return found


def _with_states(file: Path, samples: judge.Samples) -> list[dict[str, Array]]:
    """Feeds of the float model, the states that it had then among them."""
    model = judge.session(file)
    names = [output.name for output in model.get_outputs()]
    feeds, carried = [], samples.first_states(model)
    for feed in samples.feeds():
        feeds.append({**feed, **carried})
        if samples.states:
            outputs = model.run(names, feeds[-1])
            carried = {name: outputs[names.index(after)] for name, after in samples.states.items()}
    return feeds


def _one(samples: judge.Samples) -> judge.Samples:
    """The first sample, or its first two steps."""
    cut = (slice(0, 1), slice(0, 2)) if samples.states else (slice(0, 1),)
    arrays = {name: array[cut] if array.ndim else array for name, array in samples.arrays.items()}
    return judge.Samples(arrays, samples.states)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"


@dataclass(frozen=True)
class Times:
    """Milliseconds of each model, a column each, in rounds."""

    names: Sequence[str]
    rounds: Array

    def ratio(self, one: str, other: str) -> float:
        """The median over rounds of `one`'s time over `other`'s."""
        return float(np.median(self.rounds[:, self.names.index(one)] / self.rounds[:, self.names.index(other)]))

    def ms(self, name: str) -> float:
        return float(np.median(self.rounds[:, self.names.index(name)]))


def timed(models: Mapping[str, ort.InferenceSession], samples: judge.Samples, seconds: float = 12.0) -> Times:
    """All models in turn on one sample, in an order that changes, until the time is up; at least 20 rounds. Each entry
    is the least of three runs, long enough together that the clock does not matter."""
    feeds = {name: {**next(samples.feeds()), **samples.first_states(model)} for name, model in models.items()}
    names = list(models)
    again = {name: _repeats(models[name], feeds[name]) for name in names}
    rounds: list[list[float]] = []
    order, end = np.random.default_rng(0), time.perf_counter() + seconds
    while len(rounds) < 20 or time.perf_counter() < end:
        row = {name: _ms(models[name], feeds[name], again[name]) for name in order.permutation(names)}
        rounds.append([row[name] for name in names])
    return Times(names, np.array(rounds))


def _repeats(model: ort.InferenceSession, feed: Mapping[str, Array]) -> int:
    """Runs that take a millisecond together, after a few to warm up."""
    for _ in range(3):
        model.run(None, dict(feed))
    return max(1, int(1.0 / max(1e-3, _ms(model, feed, 3))))


def _ms(model: ort.InferenceSession, feed: Mapping[str, Array], again: int) -> float:
    best = np.inf
    for _ in range(3):
        begin = time.perf_counter()
        for _ in range(again):
            model.run(None, dict(feed))
        best = min(best, (time.perf_counter() - begin) * 1000 / again)
    return float(best)
