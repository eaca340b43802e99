from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.checks import measure
from pipeline.checks.protocol import LatencyRequest, MemoryRequest, ProfileRequest
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError
from pipeline.core.types import Evidence, Figure


def memory_request(model: Path, inputs: Path, **runtime: Any) -> MemoryRequest:
    return MemoryRequest(model=model, inputs=inputs, runtime=Runtime(**runtime))


def test_latency_end_to_end(matmul: Path, inputs: Path) -> None:
    request = LatencyRequest(
        model=matmul, float_model=matmul, inputs=inputs, runtime=Runtime(), min_runs=80, max_runs=80
    )
    result = measure.measure_latency(request)
    assert len(result.samples_ms) == len(result.float_samples_ms) == 80
    assert result.shape == {"x": (4, 64), "unused": (3,)}
    assert result.p50.value <= result.p90.value <= result.p95.value <= result.p99.value
    assert (result.p95.unit, result.p95.evidence, result.p95.note) == ("ms", Evidence.HOST, "")
    assert result.p99.note == "80 runs are too few for a 95 % interval, which takes 368"
    assert result.speedup is not None
    assert result.speedup.low is not None and result.speedup.high is not None
    assert result.speedup.low < result.speedup.value < result.speedup.high


def test_latency_figures_come_from_the_samples(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times 1..10 ms against 2..20 ms: median 5.5, its interval the 2nd and the 9th, twice as fast."""
    times = [float(ms) for ms in range(1, 11)]
    samples = [times, [2 * ms for ms in times]]
    answer = {"samples_ms": samples, "load_ms": [1.0, 1.0], "stopped": "max_seconds"}
    monkeypatch.setattr(measure, "run_worker", lambda _request, _timeout: answer)
    result = measure.measure_latency(LatencyRequest(model=inputs, inputs=inputs, runtime=Runtime(threads=3)))
    assert result.p50 == Figure(
        value=5.5,
        unit="ms",
        evidence=Evidence.HOST,
        low=2.0,
        high=9.0,
        note="stopped by max_seconds before it settled",
    )
    assert result.speedup == Figure(value=2.0, unit="x", evidence=Evidence.HOST, low=2.0, high=2.0)
    assert (result.threads, result.warmup) == (3, 10)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_end_to_end(matmul: Path, inputs: Path) -> None:
    result, reason = measure.measure_memory(memory_request(matmul, inputs), processes=1)
    assert reason == ""
    assert result is not None
    assert (result.load_ms.unit, result.load_peak_mb.unit) == ("ms", "MB")
    assert 0 < result.run_peak_mb.value < 50


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
