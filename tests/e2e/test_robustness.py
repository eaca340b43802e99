"""Interruptions, crashes, full disks, little memory, two exports at once, damaged store entries."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from processes import command, environment


def _hear_interrupts() -> None:
    """Under nohup, or as a shell's background job, the tests themselves run with interrupts ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _start(workspace: Path, store: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload]
        command(*arguments),
        cwd=workspace,
        env=environment(EDGE_STORE=str(store)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_interrupts,  # noqa: PLW1509  # one thread when it is called
        **options,
    )


def _leftovers(store: Path) -> list[Path]:
    return list((store / "staging").iterdir())


@pytest.mark.parametrize("stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_exports_keep_finished_stages(workspace, small, tmp_path, edge, stop) -> None:
    store = tmp_path / "fresh"
    process = _start(workspace, store, "export", *small)
    assert process.stderr is not None
    for line in process.stderr:
        if " ok " in line:
            break
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "error: Interrupted." in errors
    assert "Traceback" not in errors
    assert _leftovers(store) == []
    assert not (workspace / "out").exists()
    again = edge("export", *small, "--store", str(store))
    assert again.returncode == 0
    assert "cached" in again.stderr


@pytest.mark.slow
def test_a_killed_calibration_goes_on_with_the_same_bytes(workspace, tiny, tmp_path, edge) -> None:
    """kill -9 as soon as the observers' state was saved; the same command then gives what an undisturbed run gives."""
    words = ["red", "old", "new", "big", "water", "road", "light", "board"]
    lines = [" ".join(words[(n // 8**place) % 8] for place in range(4)) for n in range(4000)]
    (workspace / "many.txt").write_text("\n".join(lines) + "\n")
    flags = [*tiny, "--recipe", "w8a8", "--calibration-data", "many.txt", "--calibration-samples", "4000"]
    store = tmp_path / "killed"
    process = _start(workspace, store, "export", *flags)
    while not list(store.glob("scratch/*/observers.safetensors")):
        assert process.poll() is None, "it ended before it could be killed"
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert "was killed (SIGKILL)" in errors
    assert list(store.glob("scratch/*/observers.safetensors")), "it was killed too late"
    assert edge("export", *flags, "--store", str(store)).returncode == 0
    assert not list(store.glob("scratch/*/*"))
    manifest = (workspace / "out/bundle/manifest.json").read_bytes()
    assert edge("export", *flags, "--store", str(tmp_path / "undisturbed")).returncode == 0
    assert (workspace / "out/bundle/manifest.json").read_bytes() == manifest


def test_two_exports_at_once_share_the_work(workspace, small, tmp_path) -> None:
    store = tmp_path / "shared"
    processes = [_start(workspace, store, "export", *small, "--json") for _ in range(2)]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    stages = [json.loads(output)["stages"] for output, _ in results]
    for first, second in zip(*stages, strict=True):
        assert first["key"] == second["key"]
        assert first["cached"] or second["cached"], f"{first['name']} was built twice"


def test_a_damaged_store_entry_is_built_again(edge, workspace, small, tmp_path) -> None:
    store = tmp_path / "damaged"
    edge("export", *small, "--store", str(store))
    report = json.loads((workspace / "out/report.json").read_text())
    key = next(stage["key"] for stage in report["stages"] if stage["name"] == "quantize")
    codes = store / "objects" / key / "codes.safetensors"
    codes.write_bytes(codes.read_bytes()[:-1] + b"\x7f")
    done = edge("export", *small, "--store", str(store))
    assert done.returncode == 0
    assert "its stored result was damaged" in done.stderr
    notes = json.loads((workspace / "out/report.json").read_text())["notes"]
    assert any("stage quantize was damaged" in note for note in notes)


def _can_mount(folder: Path, kilobytes: int) -> bool:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    return mounted.returncode == 0


@pytest.mark.parametrize("kilobytes", [60, 100], ids=["while the graph is written", "later"])
def test_a_full_disk_is_one_clear_message(edge, small, tmp_path, kilobytes: int) -> None:
    store = tmp_path / "small"
    if not _can_mount(store, kilobytes):
        pytest.skip("mounting a small file system takes root")
    try:
        done = edge("export", *small, "--store", str(store))
        assert done.returncode == 3
        assert "the disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        assert _leftovers(store) == []
    finally:
        subprocess.run(["umount", str(store)], check=True)


def test_a_limit_below_what_libraries_need_is_told_before_they_are_loaded(edge, tiny, tmp_path) -> None:
    done = edge("export", *tiny, "--store", str(tmp_path / "fresh"), preexec_fn=partial(_limit, 1_000_000_000))
    assert done.returncode == 3, done.stderr
    assert "Out of memory: this process may map 1000 MB (ulimit -v), the libraries need 1400 MB." in done.stderr
    assert "Traceback" not in done.stderr


def test_little_memory_is_one_clear_message(edge, tiny) -> None:
    done = edge("export", *tiny, "--batch-size", "65536", preexec_fn=partial(_limit, 4_000_000_000))
    assert done.returncode == 3, done.stderr
    assert "out of memory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_library_that_ends_the_process_does_not_choose_the_exit_code() -> None:
    """1 would say that a budget was missed."""
    code = "import os; from pipeline.cli.supervise import supervised; raise SystemExit(supervised(lambda: os._exit(1)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 3
    assert done.stderr.startswith(
        "error: The process was ended by a native library (code 1), most likely out of memory."
    )


@pytest.mark.parametrize(
    ("stream", "code", "said"),
    [
        ("<&-", 0, ""),
        (">&-", 3, "error: Standard output is closed.\n  Send it to a file, or to /dev/null.\n"),
        ("2>&-", 0, ""),
    ],
)
def test_a_stream_that_was_closed_before_the_start(stream: str, code: int, said: str) -> None:
    shell = ["sh", "-c", f'exec "$@" {stream}', "sh", *command("recipes")]
    done = subprocess.run(shell, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (code, said)
    assert bool(done.stdout) == (code == 0)


@pytest.mark.parametrize("arguments", [["recipes"], ["export", "--help"]])
def test_a_reader_that_goes_away_is_no_bug(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command(*arguments), stdout=writer, stderr=subprocess.PIPE, text=True, env=environment(), check=False
    )
    os.close(writer)
    assert done.returncode == 3
    assert done.stderr == "error: Standard output was closed before all was written.\n"


def _limit(address_space: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))


def test_a_killed_export_is_reported_and_leaves_the_store_usable(workspace, small, tmp_path, edge) -> None:
    store = tmp_path / "killed"
    process = _start(workspace, store, "export", *small)
    assert process.stderr is not None
    for line in process.stderr:
        if " ok " in line:
            break
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "was killed (SIGKILL)" in errors
    assert edge("export", *small, "--store", str(store)).returncode == 0
    assert _leftovers(store) == []
