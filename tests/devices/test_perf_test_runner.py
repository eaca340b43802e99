"""A native measuring program on an Android device: the real adb client, and stand-ins for the phone and the program."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import adbd
import onnx
import pytest
from adbd import Adb, Phone
from onnx import TensorProto, helper

from pipeline.checks.timing import latency_result, take_turns
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError
from pipeline.core.types import Evidence
from pipeline.devices import perf_test_runner
from pipeline.devices.adb_runner import ADB
from pipeline.devices.ort_profile import profile
from pipeline.devices.perf_test_runner import PerfTestRunner
from pipeline.devices.runner import giving, lacking, subject_of
from pipeline.devices.worker import Facts, Memory, Part, Subject, Timing

SIDES = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 64])] for name in ("x", "y")]


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    client = adbd.start(tmp_path_factory.mktemp("adb"))
    yield client
    client.run("kill-server")


@pytest.fixture
def runner(adb: Adb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PerfTestRunner]:
    """With /data/local/tmp in a folder of the test."""
    phone = Phone(adbd.shell_environment(tmp_path))
    adb.connect(phone)
    for name, value in adb.environment.items():
        monkeypatch.setenv(name, value)
    program = tmp_path / "native/onnxruntime_perf_test"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "perf_test.py"} "$@"\n')
    (program.parent / "libonnxruntime.so").write_bytes(b"a library")
    monkeypatch.setenv("EDGE_PERF_TEST", str(program))
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setattr(perf_test_runner, "_FOLDER", str(data))
    made = ADB.at(phone.serial, None)  # type: ignore[arg-type]  # a device is no target's
    assert isinstance(made, PerfTestRunner)
    yield made
    adb.disconnect(phone)
    phone.stop()


def test_it_times_models_in_turns(runner: PerfTestRunner, matmul: Path, inputs: Path, tmp_path: Path) -> None:
    subject = subject_of(matmul, inputs, Runtime(session_config={"session.disable_prepacking": "1"}))
    turns = take_turns(runner, [subject, subject], max_seconds=0.5)
    assert turns.blocks[0].wall.shape[1] == 2
    found = latency_result(turns, 1, {"x": (3, 64)})
    assert found.speedup is not None
    assert (found.p50.evidence, found.p50.value > 0) == (Evidence.DEVICE, True)
    (place,) = (tmp_path / "data").iterdir()
    assert {path.name for path in place.iterdir()} == {"onnxruntime_perf_test", "libonnxruntime.so", "model-0"}


def test_it_profiles_the_operators(runner: PerfTestRunner, matmul: Path, inputs: Path, tmp_path: Path) -> None:
    nodes = profile(runner, subject_of(matmul, inputs, Runtime()), tmp_path / "optimized.onnx", runs=2)
    assert [node.op_type for node in nodes] == ["MatMul", "Relu"]
    assert (tmp_path / "optimized.onnx").stat().st_size > 64 * 32 * 4


def test_what_it_cannot_give_comes_from_this_machine(runner: PerfTestRunner, matmul: Path, inputs: Path) -> None:
    assert lacking(runner, "times") == ""
    assert giving(runner, "memory").evidence is giving(runner, "answers").evidence is Evidence.HOST
    with pytest.raises(StageError, match=r"^The native program on the Android device \S+ cannot measure memory\."):
        runner.run(Memory(subjects=(subject_of(matmul, inputs, Runtime()),)), 60.0)


def test_the_device_tells_what_it_is(runner: PerfTestRunner) -> None:
    info = runner.info()
    assert info.cores >= 1
    assert info.system.startswith(platform.system())
    assert runner.run(Facts(), 60.0)["reason"] == ""
    assert "onnxruntime_perf_test" in runner.remark


def test_a_program_that_fails_says_why(runner: PerfTestRunner, inputs: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.onnx"
    graph = helper.make_graph([helper.make_node("NoSuch", ["x"], ["y"])], "g", *SIDES)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), odd)
    request = Timing(subjects=(Subject(str(odd), str(inputs)),), fewest_blocks=1, fewest_rounds=3)
    with pytest.raises(StageError, match=r"^onnxruntime_perf_test on .* failed: .*NoSuch"):
        runner.run(request, 60.0)


def test_what_it_takes_and_what_not(
    runner: PerfTestRunner, matmul: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = Subject(str(matmul), str(inputs), then=(Part(str(matmul)),))
    with pytest.raises(UsageError, match=r"^The native program runs one graph, and the model has 2\."):
        runner.run(Timing(subjects=(several,), fewest_blocks=1, fewest_rounds=3), 60.0)
    monkeypatch.setenv("EDGE_PERF_TEST", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"^EDGE_PERF_TEST names '\S+/none', which is no file\."):
        ADB.at("0a", None).run(  # type: ignore[arg-type]
            Timing(subjects=(subject_of(matmul, inputs, Runtime()),), fewest_blocks=1, fewest_rounds=3), 60.0
        )
