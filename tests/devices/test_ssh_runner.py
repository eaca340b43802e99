"""The runner on a board, which is this machine behind a real sshd."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sshd
from sshd import Sshd

from pipeline.config.target import Runtime
from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.core.types import Evidence
from pipeline.devices.memory import measure_memory
from pipeline.devices.ort_profile import profile
from pipeline.devices.remote_runner import RemoteRunner
from pipeline.devices.runner import subject_of
from pipeline.devices.runner_session import RunnerSession
from pipeline.devices.ssh_runner import SSH, SshPlace, broken, parse_place
from pipeline.devices.worker import Facts, Subject, Timing
from pipeline.runtime.session import make_session

BOARD = SshPlace("board", "pi", 2222)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    running = sshd.start(tmp_path_factory.mktemp("sshd"))
    yield running
    running.stop()


@pytest.fixture
def board(server: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RemoteRunner]:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    runner = at(server)
    yield runner
    runner.close()


def at(server: Sshd) -> RemoteRunner:
    return SSH.at(server.runner.removeprefix("ssh:"), None)  # type: ignore[arg-type]  # a board is no target's


def timing(subject: Subject, seconds: float = 0.2) -> Timing:
    return Timing(
        subjects=(subject,), fewest_blocks=1, fewest_rounds=3, blocks=1, block_seconds=seconds, enough_rounds=10**6
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("board", SshPlace("board")),
        ("pi@board.local", SshPlace("board.local", "pi")),
        ("pi@10.0.0.7:2222", SshPlace("10.0.0.7", "pi", 2222)),
        ("pi@[fe80::1%eth0]:22", SshPlace("fe80::1%eth0", "pi", 22)),
    ],
)
def test_places(text: str, place: SshPlace) -> None:
    assert parse_place(text) == place
    assert str(place) == text


@pytest.mark.parametrize(
    "text", ["pi@", "@board", "-oProxyCommand=x", "pi@-oProxyCommand=x", "a b", "b;touch x", "b:0", "b:99999", "$(id)"]
)
def test_what_is_no_place_is_refused_before_anything_runs(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_place(text)
    assert caught.value.message == f"{text!r} is no place that ssh reaches."
    with pytest.raises(UsageError, match=r"^ssh: names no board\."):
        parse_place("")


@pytest.mark.parametrize(
    ("code", "said", "kind", "message"),
    [
        (255, "pi@board: Permission denied (publickey).", UsageError, "pi@board:2222 refuses the key: "),
        (255, "x\nHost key verification failed.", UsageError, "The host key of pi@board:2222 is not known here."),
        (
            255,
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            UsageError,
            "The host key of pi@board:2222 is not the one that is known: ",
        ),
        (127, "sh: 1: exec: python3: not found", UsageError, "pi@board:2222 cannot start 'python3': "),
        (1, "edge: old Python 3.9", UsageError, "pi@board:2222 has a Python that is too old: 3.9."),
        (255, "ssh: connect to host board: No route to host", StageError, "The link to pi@board:2222 broke, or there"),
        (137, "", StageError, "What measures on pi@board:2222 ended (exit 137): exit 137."),
    ],
)
def test_what_ssh_says_is_told_with_what_to_do(code: int, said: str, kind: type[EdgeError], message: str) -> None:
    error = broken(BOARD, code, said)
    assert type(error) is kind
    assert error.message.startswith(message)
    assert error.remedy


def test_a_changed_key_is_removed_by_the_name_that_is_known() -> None:
    error = broken(BOARD, 255, "REMOTE HOST IDENTIFICATION HAS CHANGED")
    assert "ssh-keygen -R '[board]:2222', then connect once by hand (ssh -p 2222 pi@board)" in error.remedy


def test_everything_is_measured_over_there(board: RemoteRunner, matmul: Path, inputs: Path, tmp_path: Path) -> None:
    subject = subject_of(matmul, inputs, Runtime())
    (block,) = board.run(timing(subject), 60.0)["blocks"]
    assert len(block["wall_ms"]) >= 10
    memory = measure_memory(board, subject, processes=1)
    assert memory.load_ms is not None and memory.load_ms.evidence is Evidence.DEVICE
    nodes = profile(board, subject, tmp_path / "optimized.onnx", runs=2)
    assert [node.op_type for node in nodes] == ["MatMul", "Relu"]
    assert (tmp_path / "optimized.onnx").stat().st_size > 64 * 32 * 4
    assert board.info().cores >= 1
    assert board.remark == ""
    board._stepped = 3600.4
    assert board.remark.startswith("The board's clock stepped by 3600 s while it was measured: ")


def test_answers_are_those_of_the_board_whatever_its_files_are_called(
    board: RemoteRunner, matmul: Path, tmp_path: Path
) -> None:
    odd = matmul.rename(tmp_path / "a b;$(touch pwned)'.onnx")
    session = RunnerSession(board, subject_of(odd, Path(), Runtime()))
    feed = {"x": np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)}
    (there,) = session.run(["y"], feed)
    (here,) = make_session(odd, Runtime()).run(["y"], feed)
    assert np.array_equal(there, here)
    assert not list(Path.home().glob("pwned")) and not list(tmp_path.glob("pwned"))


def test_a_model_is_sent_once_and_the_folder_is_gone_afterwards(
    board: RemoteRunner, matmul: Path, inputs: Path
) -> None:
    subject = subject_of(matmul, inputs, Runtime())
    board.run(timing(subject, 0.01), 60.0)
    link = board._link
    assert link is not None
    folder = Path(link.hello.folder)
    sent = {path.name: path.stat().st_mtime_ns for path in (folder / "files").iterdir()}
    assert len(sent) == 3  # the worker, the model and its inputs
    board.run(timing(subject, 0.01), 60.0)
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "files").iterdir()} == sent
    gone_within(folder / "run-1", 5.0)
    board.close()
    assert not folder.exists()


def test_a_refusal_of_the_model_comes_back_in_words(board: RemoteRunner, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "model.ort").write_bytes(b"no model")
    with pytest.raises(StageError, match=r"^Measuring timing failed: ONNX Runtime \S+ cannot load model\.ort: "):
        board.run(timing(Subject(str(tmp_path / "model.ort"), str(inputs))), 60.0)


def test_a_link_that_is_cut_mid_run_is_told_and_leaves_nothing(
    server: Sshd, board: RemoteRunner, matmul: Path, inputs: Path
) -> None:
    board.info()
    link = board._link
    assert link is not None
    folder = Path(link.hello.folder)
    threading.Timer(0.7, lambda: [os.kill(pid, signal.SIGKILL) for pid in server.sessions()]).start()
    with pytest.raises(StageError) as caught:
        board.run(timing(subject_of(matmul, inputs, Runtime()), 30.0), 60.0)
    assert caught.value.message.startswith(f"The link to {server.runner[4:]} broke, or there was none: ")
    assert "What was finished before is kept" in caught.value.remedy
    gone_within(folder, 5.0)
    assert board.info().cores >= 1  # and a new link works
    assert board.run(Facts(), 60.0)["cores"] >= 1


def gone_within(folder: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while folder.exists():
        assert time.monotonic() < end, f"{folder} is still there"
        time.sleep(0.05)


def test_what_takes_too_long_is_stopped(board: RemoteRunner, matmul: Path, inputs: Path) -> None:
    board.info()
    with pytest.raises(StageError, match=r": measuring took longer than 0\.5 s and was stopped\.\n"):
        board.run(timing(subject_of(matmul, inputs, Runtime()), 30.0), 0.5)


def test_a_key_that_is_refused(server: Sshd, board: RemoteRunner) -> None:
    allowed = server.folder / "authorized_keys"
    kept = allowed.read_text()
    allowed.write_text("")
    try:
        with pytest.raises(UsageError, match=r"refuses the key: .*Permission denied \(publickey[a-z,-]*\)\.\n"):
            board.info()
    finally:
        allowed.write_text(kept)


def test_a_host_key_that_changed_or_is_unknown_is_never_accepted(server: Sshd, board: RemoteRunner) -> None:
    try:
        sshd.know(server.folder, server.port, server.folder / "user.pub")
        with pytest.raises(UsageError, match=r"^The host key of \S+ is not the one that is known: "):
            board.info()
        (server.folder / "known_hosts").write_text("")
        with pytest.raises(UsageError, match=r"^The host key of \S+ is not known here\."):
            board.info()
        assert (server.folder / "known_hosts").read_text() == ""
    finally:
        sshd.know(server.folder, server.port, server.folder / "host.pub")


def test_a_board_without_python_or_without_onnxruntime(
    board: RemoteRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_BOARD_PYTHON", "'/no/such python' -s")
    with pytest.raises(UsageError, match=r" cannot start '/no/such python': .*(not found|No such file)"):
        board.info()
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setenv("EDGE_BOARD_PYTHON", str(tmp_path / "bare/bin/python"))
    with pytest.raises(UsageError) as caught:
        board.info()
    python = ".".join(map(str, sys.version_info[:3]))
    assert f"cannot load numpy and onnxruntime with its Python {python}" in caught.value.message
    assert "ModuleNotFoundError: No module named 'numpy'" in caught.value.message
    assert f"--python-version {sys.version_info[0]}.{sys.version_info[1]} numpy onnxruntime" in caught.value.remedy


def test_a_board_without_room(
    board: RemoteRunner, matmul: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files may have 4 blocks of 512 bytes, which the worker has not."""
    small = tmp_path / "small"
    small.write_text(f'#!/bin/sh\nulimit -f 4\nexec {sys.executable} "$@"\n')
    small.chmod(0o755)
    monkeypatch.setenv("EDGE_BOARD_PYTHON", str(small))
    with pytest.raises(StageError, match=r" has no room for the model: 0\.0 MB are needed, [0-9.]+ MB are free in "):
        board.run(timing(subject_of(matmul, inputs, Runtime())), 60.0)


@pytest.mark.slow
def test_a_board_is_lent_the_packages_that_it_lacks(
    board: RemoteRunner, matmul: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setenv("EDGE_BOARD_PYTHON", str(tmp_path / "bare/bin/python"))
    packages = tmp_path / "packages"
    packages.mkdir()
    own = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs", "onnxruntime"):
        if (own / name).exists():  # not every build of numpy has libraries of its own
            (packages / name).symlink_to(own / name)
    monkeypatch.setenv("EDGE_BOARD_PACKAGES", str(packages))
    assert board.run(timing(subject_of(matmul, inputs, Runtime())), 60.0)["blocks"]
    monkeypatch.setenv("EDGE_BOARD_PACKAGES", str(tmp_path / "none"))
    board.close()
    with pytest.raises(UsageError, match=r"^EDGE_BOARD_PACKAGES names '\S+/none', which is no folder\.\n"):
        board.info()
