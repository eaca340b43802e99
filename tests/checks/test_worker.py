from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.checks import resident, worker
from pipeline.checks.protocol import CandidatesRequest, LatencyRequest, MemoryRequest, ProfileRequest
from pipeline.config.target import Runtime
from pipeline.core.errors import UsageError
from pipeline.runtime.feeds import write_feed

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, pipeline.checks.worker; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "optimum", "onnx", "scipy", "onnxscript"}.isdisjoint(done.stdout.split())


def latency_request(matmul: Path, inputs: Path, **changes: object) -> LatencyRequest:
    return LatencyRequest.model_validate({"model": matmul, "inputs": inputs, "runtime": Runtime(), **changes})


def test_latency_stops_at_the_width_asked_for(matmul: Path, inputs: Path) -> None:
    result = worker.latency(latency_request(matmul, inputs, min_runs=50, target_half_width=1e9))
    assert result["stopped"] == "settled"
    assert [len(times) for times in result["samples_ms"]] == [50]
    assert all(ms > 0 for ms in [*result["samples_ms"][0], *result["load_ms"]])


@pytest.mark.parametrize(
    ("changes", "stopped", "runs"),
    [
        ({"max_runs": 60, "target_half_width": 1e-12}, "max_runs", 60),
        ({"max_seconds": 1e-9}, "max_seconds", 1),
    ],
)
def test_latency_stops_at_its_limits(
    matmul: Path, inputs: Path, changes: dict[str, float], stopped: str, runs: int
) -> None:
    result = worker.latency(latency_request(matmul, inputs, float_model=matmul, **changes))
    assert result["stopped"] == stopped
    assert [len(times) for times in result["samples_ms"]] == [runs, runs]


def test_runs_alternate_between_the_models(matmul: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []

    def note(session: object, _feed: object) -> float:
        order.append(id(session))
        return 1.0

    monkeypatch.setattr(worker, "_timed_run", note)
    worker.latency(latency_request(matmul, inputs, float_model=matmul, min_runs=50))
    assert len(order) == 100
    assert (len(set(order[0::2])), len(set(order[1::2])), len(set(order))) == (1, 1, 2)


def test_interval_is_watched_for_both_models(matmul: Path, inputs: Path) -> None:
    request = latency_request(matmul, inputs, min_runs=50)
    steady, wild = [10.0] * 50, [10.0, 20.0] * 25
    assert worker._stopped(request, [steady, steady], 0.0) == "settled"
    assert worker._stopped(request, [steady, wild], 0.0) == ""
    tail_above, tail_below = [10.0] * 26 + [20.0] * 24, [5.0] * 24 + [10.0] * 26
    assert worker._stopped(request, [steady, tail_above], 0.0) == ""
    assert worker._stopped(request, [tail_below, steady], 0.0) == ""
    assert worker._stopped(request, [steady[:40], steady[:40]], 0.0) == ""


def test_idle_threads_must_not_spin_beside_the_other_model() -> None:
    assert worker._interleavable(Runtime()).session_config == {}
    assert worker._interleavable(Runtime(threads=2)).session_config == {"session.force_spinning_stop": "1"}


@LINUX
def test_memory_tells_load_and_run_apart(matmul: Path, inputs: Path) -> None:
    result = worker.memory(MemoryRequest(model=matmul, inputs=inputs, runtime=Runtime()))
    assert result["reason"] == ""
    assert result["load_ms"] > 0
    assert 0 <= result["load_peak_mb"] < 200
    assert 0 <= result["run_peak_mb"] < 200


def test_memory_gives_no_number_where_the_peak_cannot_be_reset(
    matmul: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resident, "_CLEAR", tmp_path / "absent" / "clear_refs")
    result = worker.memory(MemoryRequest(model=matmul, inputs=inputs, runtime=Runtime()))
    assert (result["load_peak_mb"], result["run_peak_mb"]) == (None, None)
    assert result["reason"].startswith("the peak of resident memory cannot be reset: ")
    assert result["reason"].endswith("No such file or directory")


@LINUX
def test_resident_peak_sees_what_was_freed() -> None:
    assert resident.reset_peak() == ""
    before = resident.resident_mb()
    block = bytearray(b"x" * 50_000_000)
    del block
    assert resident.peak_mb() - before > 45.0
    resident.reset_peak()
    assert resident.peak_mb() - before < 45.0


def test_profile_has_every_node_and_leaves_nothing_behind(
    matmul: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    optimized = tmp_path / "optimized.onnx"
    request = ProfileRequest(
        model=matmul, inputs=inputs, runtime=Runtime(), runs=3, warmup=1, optimized_model=optimized
    )
    before = set(tmp_path.iterdir())
    begin = time.perf_counter()
    product, relu = worker.profile(request)["nodes"]
    elapsed = (time.perf_counter() - begin) * 1000
    assert (product["op_type"], product["output_shapes"]) == ("MatMul", ((4, 32),))
    assert product["input_shapes"][0] == (4, 64)
    assert (relu["op_type"], relu["calls"], relu["provider"]) == ("Relu", 1.0, "CPUExecutionProvider")
    assert 0 <= product["ms"] < elapsed
    assert [node.op_type for node in onnx.load(optimized).graph.node] == ["MatMul", "Relu"]
    assert set(tmp_path.iterdir()) - before == {optimized}


def test_missing_input_is_named(matmul: Path, tmp_path: Path) -> None:
    write_feed(tmp_path / "other.npz", {"tokens": np.ones(3)})
    with pytest.raises(UsageError) as caught:
        worker.memory(MemoryRequest(model=matmul, inputs=tmp_path / "other.npz", runtime=Runtime()))
    assert caught.value.message == "The model takes ['x'], but the inputs are ['tokens']."
    assert caught.value.remedy == "Add ['x']."


def test_candidates_take_turns_each_with_its_own_inputs(matmul: Path, inputs: Path) -> None:
    request = CandidatesRequest(
        models=(matmul, matmul, matmul), inputs=(inputs,) * 3, runtime=Runtime(), max_runs=50, min_runs=50
    )
    result = worker.candidates(request)
    assert [len(times) for times in result["samples_ms"]] == [50] * 3
    assert result["stopped"] in {"settled", "max_runs"}
