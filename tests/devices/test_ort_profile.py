from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.errors import StageError
from pipeline.devices.ort_profile import NodeRecord, node_records


def event(name: str, op_type: str, ts: int, dur: int, index: str = "0") -> dict[str, Any]:
    args = {
        "op_name": op_type,
        "node_index": index,
        "provider": "CPUExecutionProvider",
        "input_type_shape": [{"float": [2, 3]}, {"int64": []}],
        "output_type_shape": [{"float": [2, 4]}],
    }
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def run(ts: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": 9, "args": {}}


EVENTS = [
    event("a", "MatMul", 11, 900),
    run(10),
    event("a", "MatMul", 21, 2000),
    event("b", "Add", 22, 10),
    event("b", "Add", 23, 20),
    event("loop", "Loop", 21, 5000),
    {**event("a", "MatMul", 24, 7), "name": "a_fence_before"},
    run(20),
    event("a", "MatMul", 31, 1000),
    event("b", "Add", 32, 30),
    event("b", "Add", 33, 40, index="9"),
    run(30),
]


def test_means_are_over_the_runs_after_the_warm_up() -> None:
    """Two runs: `a` took 2 and 1 ms; `b` 10 + 20 and 30 us; a subgraph's `b` 40 us in one."""
    shapes = {"input_shapes": ((2, 3), ()), "output_shapes": ((2, 4),), "provider": "CPUExecutionProvider"}
    assert node_records(EVENTS, warmup=1) == [
        NodeRecord(name="a", op_type="MatMul", ms=1.5, calls=1.0, **shapes),
        NodeRecord(name="b", op_type="Add", ms=0.03, calls=1.5, **shapes),
        NodeRecord(name="b", op_type="Add", ms=0.02, calls=0.5, **shapes),
    ]


def test_no_run_after_the_warm_up_is_an_error() -> None:
    with pytest.raises(StageError) as caught:
        node_records(EVENTS, warmup=3)
    assert caught.value.message == "The profile has 3 runs, no more than the 3 of the warm-up."
