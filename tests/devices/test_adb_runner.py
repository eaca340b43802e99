"""The runner on an Android device: the real adb client, and a stand-in for the phone at its other end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import adbd
import numpy as np
import pytest
from adbd import Adb, Phone

from pipeline.config.target import Runtime
from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.devices.adb_runner import ADB, broken
from pipeline.devices.ort_profile import profile
from pipeline.devices.remote_runner import RemoteRunner
from pipeline.devices.runner import subject_of
from pipeline.devices.runner_session import RunnerSession
from pipeline.devices.worker import Subject, Timing
from pipeline.runtime.session import make_session


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    client = adbd.start(tmp_path_factory.mktemp("adb"))
    yield client
    client.run("kill-server")


@pytest.fixture(autouse=True)
def variables(adb: Adb, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in adb.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EDGE_BOARD_PYTHON", sys.executable)


@pytest.fixture
def phone(adb: Adb, tmp_path: Path) -> Iterator[Phone]:
    device = Phone(adbd.shell_environment(tmp_path))
    adb.connect(device)
    yield device
    adb.disconnect(device)
    device.stop()


def at(serial: str = "") -> RemoteRunner:
    return ADB.at(serial, None)  # type: ignore[arg-type]  # a device is no target's


def timing(subject: Subject, seconds: float = 0.2) -> Timing:
    return Timing(
        subjects=(subject,), fewest_blocks=1, fewest_rounds=3, blocks=1, block_seconds=seconds, enough_rounds=10**6
    )


def test_everything_is_measured_over_there(phone: Phone, matmul: Path, inputs: Path, tmp_path: Path) -> None:
    runner, subject = at(phone.serial), subject_of(matmul, inputs, Runtime())
    (block,) = runner.run(timing(subject), 60.0)["blocks"]
    assert len(block["wall_ms"]) >= 10
    nodes = profile(runner, subject, tmp_path / "optimized.onnx", runs=2)
    assert [node.op_type for node in nodes] == ["MatMul", "Relu"]
    feed = {"x": np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)}
    (there,) = RunnerSession(runner, subject).run(["y"], feed)
    assert np.array_equal(there, make_session(matmul, Runtime()).run(["y"], feed)[0])
    link = runner._link
    assert link is not None
    assert Path(link.hello.folder).is_dir()
    runner.close()


def test_a_cable_that_is_pulled_mid_run_is_told(adb: Adb, phone: Phone, matmul: Path, inputs: Path) -> None:
    runner = at()
    runner.info()
    threading.Timer(0.7, phone.unplug).start()
    with pytest.raises(StageError) as caught:
        runner.run(timing(subject_of(matmul, inputs, Runtime()), 30.0), 60.0)
    assert caught.value.message.startswith("The link to the Android device broke, or there was none: ")
    adb.connect(phone)
    assert runner.info().cores >= 1
    runner.close()


def test_no_device(adb: Adb) -> None:
    with pytest.raises(UsageError, match=r"^No Android device is connected\.\nPlug it in, turn on USB debugging "):
        at().info()
    with pytest.raises(UsageError, match=r"^The Android device 0a1b is not connected\.\n`adb devices` lists "):
        at("0a1b").info()


def test_one_of_two_devices_must_be_named(adb: Adb, phone: Phone, tmp_path: Path) -> None:
    other = Phone(adbd.shell_environment(tmp_path))
    adb.connect(other)
    try:
        with pytest.raises(UsageError, match=r"^Several Android devices are connected\.\nName one: --runner adb:"):
            at().info()
        assert at(other.serial).info().cores >= 1
    finally:
        adb.disconnect(other)
        other.stop()


def test_a_device_that_has_not_authorized_this_machine(adb: Adb, tmp_path: Path) -> None:
    locked = Phone(adbd.shell_environment(tmp_path), unauthorized=True)
    adb.connect(locked)
    try:
        with pytest.raises(UsageError, match=r" has not authorized this machine\.\nUnlock it, and allow USB debugging"):
            at(locked.serial).info()
    finally:
        adb.disconnect(locked)
        locked.stop()


def test_a_device_without_python(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_BOARD_PYTHON", "/data/no/python3")
    with pytest.raises(UsageError, match=r" cannot start '/data/no/python3': .*\nAn app's Python serves best over ssh"):
        at(phone.serial).info()


@pytest.mark.parametrize("serial", ["-s x", "a b", "a;b", "$(id)", "-x"])
def test_what_is_no_serial_is_refused(serial: str) -> None:
    with pytest.raises(UsageError) as caught:
        at(serial)
    assert caught.value.message == f"{serial!r} is no serial number of a device."


def test_without_adb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_ADB", "no-such-adb")
    with pytest.raises(UsageError, match=r"^There is no no-such-adb here\.\nInstall adb"):
        at().info()


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("error: device offline", UsageError, "The Android device 0a is offline."),
        ("error: insufficient permissions for device: verify udev", UsageError, "This user may not open the Android "),
        ("error: target doesn't support PTY args -Tt", UsageError, "The Android device 0a is too old: its shell "),
        ("error: protocol fault (couldn't read status)", StageError, "The link to the Android device 0a broke, or "),
    ],
)
def test_what_adb_says_is_told_with_what_to_do(said: str, kind: type[EdgeError], message: str) -> None:
    error = broken("0a", 1, said)
    assert type(error) is kind
    assert error.message.startswith(message)
    assert error.remedy
