"""Stage function: how far calibration covers the evaluation data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from safetensors.numpy import load_file

from pipeline.core.report_types import RangeCheck
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.data.samples import Row, evaluation_folders, open_samples
from pipeline.graph.edit import add_constant
from pipeline.graph.files import saved
from pipeline.quantize.calibrate import CHANNELS, seen_ranges
from pipeline.quantize.parts import Part, parts

SAMPLES = 64
"""Of all evaluation sets together."""

_SCRATCH = "watched.onnx"
Arrays = dict[str, NDArray[Any]]


@dataclass
class _Shares:
    """Of the samples so far: per tensor, the sum of its shares of values outside; and how many samples have any, or
    have inputs in a channel that calibration never saw active."""

    outside: dict[str, float] = field(default_factory=dict)
    samples: int = 0
    with_outside: int = 0
    with_never_seen: int = 0

    def add(self, outside: dict[str, float], never_seen: bool) -> None:
        self.samples += 1
        self.with_outside += any(outside.values())
        self.with_never_seen += never_seen
        self.outside = {name: self.outside.get(name, 0.0) + share for name, share in outside.items()}


def run(context: StageContext) -> StageMetadata:
    """The metadata are the record `RangeCheck`; nothing is written.

    The float graph that was calibrated runs over the first evaluation samples; what is counted is reduced inside it.
    """
    return _together([_of_graph(part) for part in parts(context)]).model_dump(mode="json")


def _of_graph(part: Part) -> RangeCheck:
    context, artifacts = part.context, part.context.inputs
    known = seen_ranges(artifacts["ranges"]) if "ranges" in artifacts else {}
    channels = load_file(artifacts["channels"].file(CHANNELS)) if "channels" in artifacts else {}
    never = {name: largest == 0 for name, largest in channels.items() if not largest.all()}
    shares = _Shares()
    if known or never:
        model = part.load()
        names = _watch(model.graph, known, never)
        with saved(model, context.out / _SCRATCH) as path:
            _stream(part.session(path), names, artifacts["evaluation"].path, shares, context)
    return _record(shares, len(known), sum(int(mask.sum()) for mask in never.values()))


def _together(checks: Sequence[RangeCheck]) -> RangeCheck:
    """Of a model of several graphs: the samples are those of the graph with most outside, values are of all."""
    if len(checks) == 1:
        return checks[0]
    tensors = sum(check.tensors for check in checks)
    worst = max(checks, key=lambda check: check.worst_outside)
    return RangeCheck(
        samples=max(check.samples for check in checks),
        tensors=tensors,
        samples_outside=max(check.samples_outside for check in checks),
        values_outside=sum(check.values_outside * check.tensors for check in checks) / max(tensors, 1),
        worst_tensor=worst.worst_tensor,
        worst_outside=worst.worst_outside,
        never_seen_channels=sum(check.never_seen_channels for check in checks),
        samples_never_seen=max(check.samples_never_seen for check in checks),
    )


def _record(shares: _Shares, tensors: int, never_seen: int) -> RangeCheck:
    count = max(shares.samples, 1)
    worst = max(shares.outside, key=lambda name: shares.outside[name], default="")
    return RangeCheck(
        samples=shares.samples,
        tensors=tensors,
        samples_outside=shares.with_outside / count,
        values_outside=sum(shares.outside.values()) / count / max(tensors, 1),
        worst_tensor=worst,
        worst_outside=shares.outside[worst] / count if worst else 0.0,
        never_seen_channels=never_seen,
        samples_never_seen=shares.with_never_seen / count,
    )


@dataclass(frozen=True)
class _Outputs:
    """Of the watched graph: per tensor the output with its share of values outside, and those with the largest
    magnitude in channels never seen."""

    outside: dict[str, str]
    never_seen: tuple[str, ...]


def _watch(graph: ir.Graph, ranges: Arrays, never: dict[str, NDArray[np.bool_]]) -> _Outputs:
    values = {str(value.name): value for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]}
    outside = {name: _share(graph, values[name], ends) for name, ends in ranges.items()}
    unseen = [_largest(graph, values[name], mask) for name, mask in never.items()]
    graph.outputs.clear()
    for value in (*outside.values(), *unseen):
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape([])
        graph.outputs.append(value)
    return _Outputs({name: str(v.name) for name, v in outside.items()}, tuple(str(v.name) for v in unseen))


def _share(graph: ir.Graph, value: ir.Value, ends: NDArray[np.float32]) -> ir.Value:
    """The share of the tensor's values outside `ends` and 0."""
    low, high = (
        add_constant(graph, f"{value.name}/{name}", end)
        for name, end in (("low", np.minimum(ends[0], 0)), ("high", np.maximum(ends[1], 0)))
    )
    below, above = _added(graph, "Less", [value, low]), _added(graph, "Greater", [value, high])
    real = _added(graph, "Cast", [_added(graph, "Or", [below, above], value)], value, to=ir.DataType.FLOAT)
    return _added(graph, "ReduceMean", [real], value, keepdims=0)


def _largest(graph: ir.Graph, value: ir.Value, mask: NDArray[np.bool_]) -> ir.Value:
    """The largest magnitude in the channels (last axis) of `mask`."""
    channels = add_constant(graph, f"{value.name}/never_seen", mask.astype(np.float32))
    chosen = _added(graph, "Mul", [_added(graph, "Abs", [value]), channels], value)
    return _added(graph, "ReduceMax", [chosen], value, keepdims=0)


def _added(
    graph: ir.Graph, op_type: str, inputs: list[ir.Value], of: ir.Value | None = None, **attributes: Any
) -> ir.Value:
    """The output of a new node, which is named after the tensor that it watches (the first input, unless given)."""
    name = f"{(of or inputs[0]).name}/{op_type}"
    node = ir.node(op_type, inputs, attributes=attributes or None, name=name)
    node.outputs[0].name = f"{name}/watched"
    graph.append(node)
    return node.outputs[0]


def _stream(
    session: ort.InferenceSession, outputs: _Outputs, evaluation: Path, shares: _Shares, context: StageContext
) -> None:
    wanted = [*outputs.outside.values(), *outputs.never_seen]
    for row in _rows(evaluation, [entry.name for entry in session.get_inputs()]):
        found = dict(zip(wanted, (float(value) for value in session.run(wanted, row)), strict=True))
        outside = {name: found[output] for name, output in outputs.outside.items()}
        shares.add(outside, any(found[output] > 0 for output in outputs.never_seen))
        context.progress(shares.samples, 0)


def _rows(evaluation: Path, names: list[str]) -> Iterator[Row]:
    """As many samples of each set."""
    folders = evaluation_folders(evaluation)
    for folder in folders:
        yield from open_samples(folder, max(SAMPLES // len(folders), 1)).select(names)
