"""Node records from the events of ONNX Runtime's profiler (its JSON file, in the Chrome trace format)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from pipeline.core.errors import StageError
from pipeline.core.types import Json, StrictModel
from pipeline.devices.runner import LOAD_SECONDS, Runner
from pipeline.devices.worker import Profile, Subject

_SUFFIX = "_kernel_time"
_CONTROL_FLOW = {"If", "Loop", "Scan"}  # their time contains that of the nodes in their bodies


class NodeRecord(StrictModel):
    """One node of the graph that ONNX Runtime ran.

    `ms`: its kernel's time per inference; `calls` per inference differ from 1 in loop and branch bodies only.
    Shapes are those of one call; constants that the kernel repacked at load are missing from `input_shapes`.
    """

    name: str
    op_type: str
    provider: str
    ms: float
    calls: float
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]


def profile(
    runner: Runner, subject: Subject, optimized_model: Path, runs: int = 20, warmup: int = 5, optimize: bool = True
) -> list[NodeRecord]:
    """Times and shapes of all nodes that ran; their graph is written to `optimized_model`."""
    request = Profile(
        subjects=(subject,), optimized_model=str(optimized_model), runs=runs, warmup=warmup, optimize=optimize
    )
    return node_records(runner.run(request, LOAD_SECONDS)["events"], request.warmup)


def node_records(events: list[dict[str, Json]], warmup: int) -> list[NodeRecord]:
    """One record per node in order of execution, averaged over the runs after the first `warmup` ones.

    Nodes are told apart by name, operator and index, since names can repeat between subgraphs. StageError if
    there was no run after the warm-up.
    """
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    if len(starts) <= warmup:
        raise StageError(f"The profile has {len(starts)} runs, no more than the {warmup} of the warm-up.")
    groups: dict[tuple[str, str, str], list[dict[str, Json]]] = defaultdict(list)
    for event in events:
        if _is_kernel(event) and event["ts"] >= starts[warmup]:
            groups[event["name"], event["args"]["op_name"], event["args"]["node_index"]].append(event)
    return [_record(group, len(starts) - warmup) for group in groups.values()]


def _is_kernel(event: dict[str, Json]) -> bool:
    return event["cat"] == "Node" and event["name"].endswith(_SUFFIX) and event["args"]["op_name"] not in _CONTROL_FLOW


def _record(events: list[dict[str, Json]], runs: int) -> NodeRecord:
    args = events[0]["args"]
    return NodeRecord(
        name=events[0]["name"].removesuffix(_SUFFIX),
        op_type=args["op_name"],
        provider=args["provider"],
        ms=sum(event["dur"] for event in events) / 1000 / runs,
        calls=len(events) / runs,
        input_shapes=_shapes(args["input_type_shape"]),
        output_shapes=_shapes(args["output_type_shape"]),
    )


def _shapes(typed: list[dict[str, list[int]]]) -> tuple[tuple[int, ...], ...]:
    """`[{"float": [1, 128]}, ...]` without the types."""
    return tuple(tuple(shape) for entry in typed for shape in entry.values())
