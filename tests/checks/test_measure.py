from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.checks import measure
from pipeline.checks.protocol import MemoryRequest, ProfileRequest
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError


def memory_request(model: Path, inputs: Path, **runtime: Any) -> MemoryRequest:
    return MemoryRequest(model=model, inputs=inputs, runtime=Runtime(**runtime))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_end_to_end(matmul: Path, inputs: Path) -> None:
    result, reason = measure.measure_memory(memory_request(matmul, inputs), processes=1)
    assert reason == ""
    assert result is not None
    assert (result.load_ms.unit, result.load_peak_mb.unit) == ("ms", "MB")
    assert 0 < result.run_peak_mb.value < 50
    assert result.run_peak_mb.doubt is not None and result.run_peak_mb.doubt.covers(1e9)
    assert result.run_peak_mb.doubt.why == "1 processes are too few for an interval, which takes 3"


def test_memory_is_the_median_of_processes(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([3.0, 1.0, 2.0])

    def answer(_request: object, _timeout: float) -> dict[str, Any]:
        value = next(values)
        return {"load_ms": value, "load_peak_mb": value + 10, "run_peak_mb": value + 20, "reason": ""}

    monkeypatch.setattr(measure, "run_worker", answer)
    result, _ = measure.measure_memory(memory_request(inputs, inputs))
    assert result is not None
    assert (result.load_peak_mb.value, result.load_peak_mb.low, result.load_peak_mb.high) == (
        12.0,
        11.0,
        13.0,
    )
    assert result.run_peak_mb.note == "median and extremes of 3 processes"
    doubt = result.load_peak_mb.doubt
    assert doubt is not None and (doubt.low, doubt.high) == (9.0, 15.0)  # the extremes and as much again


def test_memory_that_is_not_told_has_a_reason(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"load_ms": 1.0, "load_peak_mb": None, "run_peak_mb": None, "reason": "no /proc"}
    monkeypatch.setattr(measure, "run_worker", lambda _request, _timeout: answer)
    assert measure.measure_memory(memory_request(inputs, inputs)) == (None, "no /proc")


def test_profile_end_to_end(matmul: Path, inputs: Path, tmp_path: Path) -> None:
    request = ProfileRequest(
        model=matmul, inputs=inputs, runtime=Runtime(), runs=2, optimized_model=tmp_path / "optimized.onnx"
    )
    assert [node.op_type for node in measure.profile(request)] == ["MatMul", "Relu"]


def test_refusal_of_the_worker_is_a_usage_error(matmul: Path, inputs: Path) -> None:
    with pytest.raises(UsageError, match="ONNX Runtime here has no MoonExecutionProvider"):
        measure.run_worker(memory_request(matmul, inputs, providers=("MoonExecutionProvider",)), 60.0)


def test_failure_shows_the_last_line_of_stderr(inputs: Path) -> None:
    with pytest.raises(StageError, match=r"^Measuring memory failed: .*(INVALID_PROTOBUF|FAIL)"):
        measure.run_worker(memory_request(inputs, inputs), 60.0)


def test_timeout_is_told(matmul: Path, inputs: Path) -> None:
    with pytest.raises(StageError) as caught:
        measure.run_worker(memory_request(matmul, inputs), 0.001)
    assert caught.value.message == "Measuring memory took longer than 0.001 s and was stopped."


@pytest.mark.parametrize(
    ("returncode", "stderr", "expected"),
    [
        (1, "Traceback\nValueError: bad.\n", "ValueError: bad"),
        (1, "", "the process said nothing"),
        (1, "Fail: Failed to allocate memory for requested buffer of size 819200000.", "out of memory"),
        (-signal.SIGKILL, "", "SIGKILL, most likely out of memory"),
        (-signal.SIGILL, "x\ny\n", "SIGILL (y)"),
    ],
)
def test_causes(returncode: int, stderr: str, expected: str) -> None:
    assert measure._cause(returncode, stderr) == expected


def test_environment_keeps_what_does_not_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "ORT_LOAD_CONFIG_FROM_MODEL",
        "MALLOC_ARENA_MAX",
        "PYTHONSTARTUP",
    ):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("EDGE_KEPT", "1")
    environment = measure._environment()
    assert environment["EDGE_KEPT"] == "1"
    assert not [name for name in environment if name.startswith(("OMP_", "MKL_", "ORT_", "MALLOC_"))]
    assert "PYTHONSTARTUP" not in environment
    assert environment["PYTHONPATH"].startswith(str(Path(measure.__file__).parents[2]))
