"""The measuring program, in this process and as the lone file that it is."""

from __future__ import annotations

import ast
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from pipeline.config.target import Runtime
from pipeline.devices import worker
from pipeline.devices.ort_profile import node_records
from pipeline.devices.runner import encode, subject_of
from pipeline.devices.worker import Facts, Fit, Memory, Profile, Refusal, Subject, Timing, fitting
from pipeline.runtime.feeds import write_feed

Save = Callable[..., Path]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
WORKER = Path(worker.__file__)
_ALONE = """
import runpy, sys
for name in ("psutil", "pydantic", "pipeline", "onnx", "scipy"):
    sys.modules[name] = None  # as if it were not installed
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_the_file_imports_nothing_but_numpy_and_onnxruntime() -> None:
    nodes = list(ast.walk(ast.parse(WORKER.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." * node.level for node in nodes if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"numpy", "onnxruntime"}


def test_a_person_is_told_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text("{")
    for name in ("none.json", "odd.json"):
        command = [sys.executable, str(WORKER), name, "report.json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (2, "")
        assert done.stdout.startswith(f"{name} is no request that can be read: ")
    assert not (tmp_path / "report.json").exists()


def test_nothing_heavy_is_loaded() -> None:
    code = f"import runpy, sys; runpy.run_path({str(WORKER)!r}); print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"torch", "transformers", "optimum", "onnx", "scipy", "onnxscript", "pydantic", "pipeline"}.isdisjoint(
        loaded
    )


def alone(request: worker.Request, folder: Path) -> dict[str, Any]:
    """The result of a copy of the file, run where neither this package nor psutil can be imported."""
    copy = folder / "copied.py"
    copy.write_bytes(WORKER.read_bytes())
    done = subprocess.run(
        [sys.executable, "-I", "-c", _ALONE, str(copy)],
        input=encode(request),
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@LINUX
def test_the_file_works_alone(matmul: Path, inputs: Path, tmp_path: Path) -> None:
    subject = subject_of(matmul, inputs, Runtime())
    found = alone(Memory(subjects=(subject,)), tmp_path)
    assert found["reason"] == "" and found["run_peak_mb"] >= 0
    (block,) = alone(timing_request(matmul, inputs, blocks=1), tmp_path)["blocks"]
    assert len(block["wall_ms"]) == 10
    assert alone(Facts(), tmp_path)["cpuinfo"]


def test_a_refused_request_is_an_answer(matmul: Path, tmp_path: Path) -> None:
    write_feed(tmp_path / "other.npz", {"tokens": np.ones(3)})
    found = alone(Memory(subjects=(subject_of(matmul, tmp_path / "other.npz", Runtime()),)), tmp_path)
    assert found == {"error": "The model takes ['x'], but the inputs are ['tokens'].", "remedy": "Add ['x']."}


def timing_request(matmul: Path, inputs: Path, models: int = 2, **changes: Any) -> Timing:
    subject = subject_of(matmul, inputs, Runtime())
    quick = {"blocks": 3, "enough_rounds": 12, "block_seconds": 1e-6, "warmup": 2}
    return Timing(subjects=(subject,) * models, fewest_blocks=3, fewest_rounds=2, **{**quick, **changes})


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
def test_when_a_block_is_full(rounds: int, seconds: float, full: bool) -> None:
    assert worker.full(Timing(fewest_blocks=3, fewest_rounds=2), rounds, seconds) is full


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
    one, two = Subject("m", "i"), Subject("m", "i", threads=2)
    assert worker.interleavable(one, 2).config == {}
    assert worker.interleavable(two, 1).config == {}
    assert worker.interleavable(two, 2).config == {"session.force_spinning_stop": "1"}


@LINUX
def test_memory_tells_load_and_run_apart(matmul: Path, inputs: Path) -> None:
    result = worker.memory(Memory(subjects=(subject_of(matmul, inputs, Runtime()),)))
    assert result["reason"] == ""
    assert result["load_ms"] > 0
    assert 0 <= result["load_peak_mb"] < 200
    assert 0 <= result["run_peak_mb"] < 200
    assert result["how"] == "peak resident memory of each phase (Linux: VmHWM)"
    assert set(result["load_parts_mb"]) == set(result["run_parts_mb"]) == {"anonymous", "file"}


@LINUX
def test_what_is_mapped_from_a_file_is_told_from_what_is_not(tmp_path: Path) -> None:
    """30 MB of a file that are mapped and read, and 50 MB of one's own."""
    place = tmp_path / "mapped"
    place.write_bytes(b"x" * 30_000_000)
    with worker._Watch() as watch, place.open("rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            block = np.ones(6_250_000)
            assert sum(mapped[at] for at in range(0, len(mapped), 4096)) > 0
            time.sleep(0.1)  # so that it is seen
        first = watch.parts_mb()
        del block
        time.sleep(0.1)
        watch.parts_mb()
        after = watch.parts_mb()
    assert first is not None and after is not None
    assert first["file"] == pytest.approx(30, abs=3)
    assert first["anonymous"] == pytest.approx(50, abs=5)
    assert after["file"] < 5 and after["anonymous"] < 10


def test_where_the_peak_cannot_be_reset_that_of_the_whole_life_stands_for_it(
    matmul: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on macOS; what was resident before and is no more counts there."""
    pytest.importorskip("psutil", reason="psutil is not installed")
    monkeypatch.setattr(worker, "_CLEAR", tmp_path / "absent" / "clear_refs")
    block = bytearray(b"x" * 200_000_000)
    del block
    result = worker.memory(Memory(subjects=(subject_of(matmul, inputs, Runtime()),)))
    assert result["reason"] == ""
    assert result["how"] == "peak resident memory of the process's whole life (psutil), which is no less"
    assert result["run_peak_mb"] >= result["load_peak_mb"] > 10


def test_memory_gives_no_number_where_the_peak_cannot_be_reset(
    matmul: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(worker, "_CLEAR", tmp_path / "absent" / "clear_refs")
    monkeypatch.setitem(sys.modules, "psutil", None)  # as if it were not installed
    result = worker.memory(Memory(subjects=(subject_of(matmul, inputs, Runtime()),)))
    assert (result["load_peak_mb"], result["run_peak_mb"]) == (None, None)
    assert result["reason"].startswith("the peak of resident memory cannot be reset: ")
    assert result["reason"].endswith("No such file or directory")


def grown(save_model: Save, megabytes: int) -> Path:
    """A model that makes an array of so many MB of the one number that it is given."""
    nodes = [helper.make_node("Expand", ["x", "shape"], ["h"]), helper.make_node("ReduceSum", ["h"], ["y"])]
    return save_model(nodes, {"shape": np.array([megabytes * 250_000])}, [1])


@LINUX
@pytest.mark.parametrize(("limit_mb", "fits"), [(300.0, True), (40.0, False)])
def test_what_takes_more_than_its_limit_is_ended(save_model: Save, tmp_path: Path, limit_mb: float, fits: bool) -> None:
    write_feed(tmp_path / "one.npz", {"x": np.ones(1, np.float32)})
    subject = subject_of(grown(save_model, 80), tmp_path / "one.npz", Runtime())
    result = worker.fit(Fit(subjects=(subject,), limit_mb=limit_mb))
    if result["fits"] is None:
        pytest.skip(result["reason"])
    assert (result["fits"], result["how"][:8]) == (fits, "cgroup v")
    assert not list(worker._GROUPS.rglob(f"edge-{os.getpid()}-*"))


def test_where_no_control_group_can_be_made_the_reason_is_told(
    matmul: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/user.slice\n")
    monkeypatch.setattr(worker, "_OWN_GROUPS", own)
    monkeypatch.setattr(worker, "_GROUPS", tmp_path / "none")
    result = worker.fit(Fit(subjects=(subject_of(matmul, inputs, Runtime()),), limit_mb=100.0))
    assert result["fits"] is None
    assert result["reason"].startswith("no control group can be made here: ")


@LINUX
def test_resident_peak_sees_what_was_freed() -> None:
    assert worker.reset_peak() == ""
    before = worker.resident_mb()
    block = bytearray(b"x" * 50_000_000)
    del block
    assert worker.peak_mb() - before > 45.0
    worker.reset_peak()
    assert worker.peak_mb() - before < 45.0


def test_a_machine_that_does_not_tell_its_cpu_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker, "_CPUINFO", tmp_path / "cpuinfo")
    found = worker.facts(Facts())
    assert found["cpuinfo"] == ""
    assert found["reason"].startswith("the CPU's instruction sets are not told: ")
    monkeypatch.setattr(worker, "_STAT", tmp_path / "stat")
    assert worker.cpu_time() is None


def test_profile_has_every_node_and_leaves_nothing_behind(
    matmul: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    optimized = tmp_path / "optimized.onnx"
    subject = subject_of(matmul, inputs, Runtime())
    request = Profile(subjects=(subject,), runs=3, warmup=1, optimized_model=str(optimized))
    before = set(tmp_path.iterdir())
    begin = time.perf_counter()
    product, relu = node_records(worker.profile(request)["events"], request.warmup)
    elapsed = (time.perf_counter() - begin) * 1000
    assert (product.op_type, product.output_shapes) == ("MatMul", ((4, 32),))
    assert product.input_shapes[0] == (4, 64)
    assert (relu.op_type, relu.calls, relu.provider) == ("Relu", 1.0, "CPUExecutionProvider")
    assert 0 <= product.ms < elapsed
    assert [node.op_type for node in onnx.load(optimized).graph.node] == ["MatMul", "Relu"]
    assert set(tmp_path.iterdir()) - before == {optimized}


def test_missing_input_is_named(matmul: Path, tmp_path: Path) -> None:
    write_feed(tmp_path / "other.npz", {"tokens": np.ones(3)})
    with pytest.raises(Refusal) as caught:
        worker.memory(Memory(subjects=(subject_of(matmul, tmp_path / "other.npz", Runtime()),)))
    assert caught.value.message == "The model takes ['x'], but the inputs are ['tokens']."
    assert caught.value.remedy == "Add ['x']."


def test_a_sample_that_does_not_fit_is_refused_in_words(matmul: Path, tmp_path: Path) -> None:
    write_feed(tmp_path / "odd.npz", {"x": np.ones((4, 63), np.float32)})
    with pytest.raises(Refusal) as caught:
        worker.memory(Memory(subjects=(subject_of(matmul, tmp_path / "odd.npz", Runtime()),)))
    assert caught.value.kind == "refused"
    assert "cannot run matmul.onnx on a sample: " in caught.value.message
    assert caught.value.remedy == "Check that the samples (ids, shapes, lengths) are what the model takes."


def test_wall_time_beyond_cpu_time_shows_a_sleep(matmul: Path, inputs: Path) -> None:
    class Sleeper:
        def run(self, _outputs: object, _feed: object) -> None:
            time.sleep(0.02)

    wall, cpu = worker._timed_run(Sleeper(), {}, time.thread_time_ns)
    assert wall >= 20.0
    assert cpu < 10.0


def test_what_has_no_values_gets_the_dtype_that_the_graph_takes() -> None:
    feed = {"ids": np.zeros((1, 0), np.int64), "past": np.zeros((1, 2, 0, 8), np.float32), "x": np.ones(2, np.float32)}
    found = fitting({"past": "int8", "x": "float16", "missing": "int8"}, feed)
    assert {name: array.dtype.name for name, array in found.items()} == {"ids": "int64", "past": "int8", "x": "float32"}
    assert found["past"].shape == (1, 2, 0, 8)
