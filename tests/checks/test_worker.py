from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.checks import resident, worker
from pipeline.checks.protocol import MemoryRequest, ProfileRequest, Subject, TimingRequest
from pipeline.config.target import Runtime
from pipeline.core.errors import UsageError
from pipeline.runtime.feeds import write_feed

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, pipeline.checks.worker; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "optimum", "onnx", "scipy", "onnxscript"}.isdisjoint(done.stdout.split())


def timing_request(matmul: Path, inputs: Path, models: int = 2, **changes: object) -> TimingRequest:
    subject = Subject(model=matmul, inputs=inputs, runtime=Runtime())
    quick = {"blocks": 3, "enough_rounds": 12, "block_seconds": 1e-6, "warmup": 2}
    return TimingRequest.model_validate({"subjects": (subject,) * models, **quick, **changes})


def test_every_block_has_the_raw_times_of_its_rounds(matmul: Path, inputs: Path) -> None:
    result = worker.timing(timing_request(matmul, inputs))
    assert len(result["blocks"]) == 3
    for block in result["blocks"]:
        assert len(block["load_ms"]) == 2
        assert len(block["wall_ms"]) == len(block["cpu_ms"]) == len(block["switches"]) == 10
        assert all(len(row) == 2 and min(row) > 0 for row in [*block["wall_ms"], *block["cpu_ms"]])


def test_a_single_model_takes_no_turns(matmul: Path, inputs: Path) -> None:
    (block,) = worker.timing(timing_request(matmul, inputs, models=1, blocks=1))["blocks"]
    assert {len(row) for row in block["wall_ms"]} == {1}


@pytest.mark.parametrize(
    ("rounds", "seconds", "full"),
    [
        (9, 0.6, False),  # fewer than min_rounds
        (10, 0.6, True),
        (150, 0.4, False),  # goes on until block_seconds
        (200, 0.2, False),  # enough rounds, but half of that time is needed to see what others take
        (200, 0.25, True),
        (1, 9.0, False),  # slow models: two
        (2, 3.0, True),
        (2, 2.9, False),
    ],
)
def test_when_a_block_is_full(matmul: Path, inputs: Path, rounds: int, seconds: float, full: bool) -> None:
    subject = Subject(model=matmul, inputs=inputs, runtime=Runtime())
    assert worker._full(TimingRequest(subjects=(subject,)), rounds, seconds) is full


def test_no_block_begins_after_the_time_but_for_the_third(matmul: Path, inputs: Path) -> None:
    result = worker.timing(timing_request(matmul, inputs, blocks=9, max_seconds=1e-9))
    assert len(result["blocks"]) == 3


def test_the_order_in_a_round_is_drawn_from_the_seed(
    matmul: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fixed order would give each model the same place in every period of a neighbour."""
    order: list[int] = []

    def note(session: object, _feed: object, _clock: object) -> tuple[float, float]:
        order.append(id(session))
        return 1.0, 1.0

    def orders(seed: int) -> list[bool]:
        order.clear()
        worker.timing(timing_request(matmul, inputs, blocks=1, seed=seed, min_rounds=40, warmup=1))
        pairs = list(zip(order[0::2], order[1::2], strict=True))
        assert all(len({first, second}) == 2 for first, second in pairs)
        return [first == min(order) for first, _ in pairs]

    monkeypatch.setattr(worker, "_timed_run", note)
    first = orders(0)
    assert 5 < sum(first) < 35
    again, inverted = orders(0), orders(1)
    assert first in (again, [not flag for flag in again])  # which session has the lower id is chance
    assert first not in (inverted, [not flag for flag in inverted])


def test_idle_threads_must_not_spin_beside_the_other_model() -> None:
    assert worker._interleavable(Runtime(), 2).session_config == {}
    assert worker._interleavable(Runtime(threads=2), 1).session_config == {}
    assert worker._interleavable(Runtime(threads=2), 2).session_config == {"session.force_spinning_stop": "1"}


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


def test_wall_time_beyond_cpu_time_shows_a_sleep(matmul: Path, inputs: Path) -> None:
    class Sleeper:
        def run(self, _outputs: object, _feed: object) -> None:
            time.sleep(0.02)

    wall, cpu = worker._timed_run(Sleeper(), {}, time.thread_time_ns)  # type: ignore[arg-type]
    assert wall >= 20.0
    assert cpu < 10.0
