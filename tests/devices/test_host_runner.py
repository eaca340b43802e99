from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError
from pipeline.core.report_types import FitResult, MemoryResult
from pipeline.core.types import Evidence
from pipeline.devices import RUNNERS, host_runner
from pipeline.devices.host_runner import HOST
from pipeline.devices.memory import BY_PEAK, measure_fit, measure_memory, memory_result
from pipeline.devices.ort_profile import profile
from pipeline.devices.runner import checked, subject_of
from pipeline.devices.worker import Facts, Memory


def memory_request(model: Path, inputs: Path, **runtime: Any) -> Memory:
    return Memory(subjects=(subject_of(model, inputs, Runtime(**runtime)),))


class Answers:
    """A runner that gives these results one after the other."""

    evidence = Evidence.EMULATED

    def __init__(self, *results: dict[str, Any]) -> None:
        self._results = iter(results)

    def run(self, _request: object, _timeout_s: float) -> dict[str, Any]:
        return next(self._results)

    def info(self) -> Any:
        return HOST.info()


def peaks(anonymous: float) -> MemoryResult:
    parts = {"anonymous": anonymous, "file": 5.0}
    answer = {"load_ms": 1.0, "load_peak_mb": 9.0, "run_peak_mb": 1.0, "reason": "", "load_parts_mb": parts}
    return memory_result([answer] * 3, Evidence.DEVICE)


def test_what_does_not_fit_is_tried_under_larger_limits(inputs: Path) -> None:
    """100 MB do not do, nor 105 and 110; 125 do."""
    answers = [{"fits": fits, "how": "cgroup v2", "reason": ""} for fits in (False, False, False, True)]
    found = measure_fit(Answers(*answers), subject_of(inputs, inputs, Runtime()), 100.0, peaks(1.0))
    assert found == FitResult(limit_mb=100.0, fits=False, how="cgroup v2", needs_mb=125.0)


@pytest.mark.parametrize(("anonymous", "fits"), [(99.0, True), (101.0, False)])
def test_without_a_limit_what_is_anonymous_must_fit(inputs: Path, anonymous: float, fits: bool) -> None:
    answer = {"fits": None, "how": "", "reason": "no control group can be made here: read-only"}
    found = measure_fit(Answers(answer), subject_of(inputs, inputs, Runtime()), 100.0, peaks(anonymous))
    assert found is not None
    assert (found.fits, found.how, found.reason) == (fits, BY_PEAK, answer["reason"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_end_to_end(matmul: Path, inputs: Path) -> None:
    result = measure_memory(HOST, subject_of(matmul, inputs, Runtime()), processes=1)
    assert result.reason == ""
    assert result.load_peak_mb is not None and result.run_peak_mb is not None
    assert (result.load_ms.unit, result.load_peak_mb.unit) == ("ms", "MB")
    assert 0 < result.run_peak_mb.value < 50
    assert result.run_peak_mb.doubt is not None and result.run_peak_mb.doubt.covers(1e9)
    assert result.run_peak_mb.doubt.why == "1 processes are too few for an interval, which takes 3"


def test_memory_is_the_median_of_processes(inputs: Path) -> None:
    answers = [
        {"load_ms": value, "load_peak_mb": value + 10, "run_peak_mb": value + 20, "reason": ""}
        for value in (3.0, 1.0, 2.0)
    ]
    result = measure_memory(Answers(*answers), subject_of(inputs, inputs, Runtime()))
    assert result.load_peak_mb is not None and result.run_peak_mb is not None
    assert (result.load_peak_mb.value, result.load_peak_mb.low, result.load_peak_mb.high) == (
        12.0,
        11.0,
        13.0,
    )
    assert result.run_peak_mb.note == "median and extremes of 3 processes"
    doubt = result.load_peak_mb.doubt
    assert doubt is not None and (doubt.low, doubt.high) == (9.0, 15.0)  # the extremes and as much again


def test_memory_that_is_not_told_has_a_reason_and_the_load_time_is_still_there(inputs: Path) -> None:
    answer = {"load_ms": 1.0, "load_peak_mb": None, "run_peak_mb": None, "reason": "no /proc"}
    result = measure_memory(Answers(answer, answer, answer), subject_of(inputs, inputs, Runtime()))
    assert (result.load_peak_mb, result.run_peak_mb, result.reason) == (None, None, "no /proc")
    assert result.load_ms.value == 1.0


def test_a_figure_counts_as_what_its_runner_says(inputs: Path) -> None:
    answer = {"load_ms": 1.0, "load_peak_mb": 1.0, "run_peak_mb": 1.0, "reason": ""}
    result = measure_memory(Answers(answer, answer, answer), subject_of(inputs, inputs, Runtime()))
    assert result.load_ms.evidence is Evidence.EMULATED


def test_profile_end_to_end(matmul: Path, inputs: Path, tmp_path: Path) -> None:
    nodes = profile(HOST, subject_of(matmul, inputs, Runtime()), tmp_path / "optimized.onnx", runs=2)
    assert [node.op_type for node in nodes] == ["MatMul", "Relu"]


def test_this_machine_is_a_runner_that_is_found_by_name() -> None:
    assert RUNNERS.get("host") is HOST
    assert HOST.run(Facts(), 60.0)["cores"] >= 1
    with pytest.raises(UsageError, match="Unknown runner 'hots'"):
        RUNNERS.get("hots")


def test_refusal_of_the_worker_is_a_usage_error(matmul: Path, inputs: Path) -> None:
    with pytest.raises(UsageError, match="ONNX Runtime here has no MoonExecutionProvider"):
        HOST.run(memory_request(matmul, inputs, providers=("MoonExecutionProvider",)), 60.0)


def test_failure_shows_what_onnx_runtime_says(inputs: Path) -> None:
    with pytest.raises(StageError, match=r"^Measuring memory failed: .*(INVALID_PROTOBUF|FAIL)"):
        HOST.run(memory_request(inputs, inputs), 60.0)


def test_running_out_of_memory_says_nothing_of_the_model(inputs: Path) -> None:
    refused = {"refused": "ONNX Runtime 1 cannot load m: Failed to allocate memory for requested buffer", "remedy": ""}
    with pytest.raises(StageError) as caught:
        checked(memory_request(inputs, inputs), refused)
    assert caught.value.message == "Measuring memory failed: out of memory."


def test_timeout_is_told(matmul: Path, inputs: Path) -> None:
    with pytest.raises(StageError) as caught:
        HOST.run(memory_request(matmul, inputs), 0.001)
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
    assert host_runner.cause(returncode, stderr) == expected


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
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    environment = host_runner.measuring_environment()
    assert environment["EDGE_KEPT"] == "1"
    assert not [name for name in environment if name.startswith(("OMP_", "MKL_", "ORT_", "MALLOC_"))]
    assert "PYTHONSTARTUP" not in environment
    assert environment["PYTHONPATH"] == "somewhere"
