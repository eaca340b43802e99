"""Stages run once per key; crashes, damage and other processes do no harm."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.digest import sha256_file
from pipeline.core.errors import ExitCode, IntegrityError, StageError, UsageError
from pipeline.core.run_stages import execute
from pipeline.core.stage import Stage
from pipeline.core.store import Store

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUN = """
import sys
from pathlib import Path
from pipeline.core.run_stages import execute
from pipeline.core.stage import Stage
from pipeline.core.store import Store
store = Store(Path(sys.argv[1]))
store.prepare()
stage = Stage("write", 1, f"stage_functions:{sys.argv[2]}", eval(sys.argv[3]))
print(execute(stage, {}, store).cached)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def stage(run: str = "write", **config: object) -> Stage:
    return Stage("write", 1, f"stage_functions:{run}", {"text": "hello", **config})


def process(store: Store, run: str, config: dict[str, object]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE)))}
    command = [sys.executable, "-c", RUN, str(store.root), run, repr(config)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def holds_open(one: subprocess.Popen[str], folder: Path) -> bool:
    """Has the process a file of `folder` open?"""
    for link in Path(f"/proc/{one.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            if link.readlink().parent == folder:
                return True
    return False


def opened(gate: Path) -> bool:
    """Let through who reads from the named pipe; nobody may be there yet."""
    try:
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


def until(true: Callable[[], bool], running: Sequence[subprocess.Popen[str]], seconds: float = 60.0) -> None:
    """Wait for something that the processes do; fail if one ends before, or it takes too long."""
    end = time.monotonic() + seconds
    while not true():
        assert all(one.poll() is None for one in running), [one.communicate() for one in running]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def leftovers(store: Store) -> list[Path]:
    return list((store.root / "staging").iterdir())


def test_a_stage_runs_once_per_key(store: Store) -> None:
    first, second = execute(stage(), {}, store), execute(stage(), {}, store)
    assert (first.cached, second.cached) == (False, True)
    assert first.artifact == second.artifact
    assert second.artifact.file("text.txt").read_text() == "hello"
    assert second.artifact.metadata == {"length": 5}


def test_inputs_are_passed_by_role(store: Store) -> None:
    source = execute(stage(), {}, store).artifact
    copied = execute(Stage("copy", 1, "stage_functions:copy", {}), {"source": source}, store).artifact
    assert copied.file("copy.txt").read_text() == "hello"


def test_the_key_is_all_that_may_change_the_result_and_nothing_else(store: Store) -> None:
    base = stage()
    key = base.key({})
    other_input = execute(stage(text="other"), {}, store).artifact
    changed = {
        "name": (replace(base, name="other"), {}),
        "version": (replace(base, version=2), {}),
        "config": (stage(text="bye"), {}),
        "libraries": (replace(base, libraries=("numpy",)), {}),
        "inputs": (base, {"source": other_input}),
    }
    assert len({key, *(one.key(inputs) for one, inputs in changed.values())}) == 1 + len(changed)
    assert replace(base, local={"path": "/elsewhere"}).key({}) == key
    assert replace(base, run="stage_functions:copy").key({}) == key


def test_a_file_whose_digest_is_told_is_found_damaged_as_any_other(store: Store, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("weights")
    told = sha256_file(tmp_path / "weights")
    made = Stage("linked", 1, "stage_functions:linked", {"file": str(tmp_path / "weights"), "digest": told})
    first = execute(made, {}, store).artifact
    assert json.loads((first.path / "artifact.json").read_text())["files"]["linked"]["sha256"] == told
    assert execute(made, {}, store).cached
    (tmp_path / "weights").write_text("changed")  # the same file
    with pytest.raises(IntegrityError, match="linked was changed"):
        store.find(first.key)


def test_equal_contents_are_one_input(store: Store) -> None:
    """Two stages that give the same bytes: what follows them has one key."""
    one = execute(Stage("write", 1, "stage_functions:write", {"text": "x", "unused": 0}), {}, store).artifact
    two = execute(Stage("write", 2, "stage_functions:write", {"text": "x"}), {}, store).artifact
    follower = Stage("copy", 1, "stage_functions:copy", {})
    assert one.key != two.key
    assert follower.key({"source": one}) == follower.key({"source": two})


@pytest.mark.parametrize("run", ["fail", "full_disk", "hungry"])
def test_a_failing_stage_leaves_nothing(store: Store, run: str) -> None:
    with pytest.raises((ValueError, StageError)):
        execute(stage(run), {}, store)
    assert leftovers(store) == []
    assert store.entries() == []
    assert not execute(stage(), {}, store).cached


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("full_disk", "Stage write: the disk is full."),
        ("hungry", "Stage write: out of memory."),
        ("torch_like", "Stage write: out of memory."),
    ],
)
def test_failures_of_the_system_name_the_stage(store: Store, run: str, message: str) -> None:
    with pytest.raises(StageError) as caught:
        execute(stage(run), {}, store)
    assert caught.value.message == message
    assert "finished stages are kept" in caught.value.remedy
    assert caught.value.exit_code == ExitCode.STAGE_FAILED


def test_a_killed_stage_leaves_a_usable_store(store: Store) -> None:
    victim = process(store, "write_then_wait", {"text": "hello"})
    assert victim.stdout is not None
    assert victim.stdout.readline() == "ready\n"  # or the end of its output, should it die before
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert len(leftovers(store)) == 1  # what the crash left
    assert store.entries() == []
    done = execute(stage("write"), {}, store)  # the same key: `run` is not in it
    assert not done.cached
    assert leftovers(store) == []


def test_two_processes_share_one_run(store: Store, tmp_path: Path) -> None:
    """The first is held inside the stage until the second has opened the lock: they are there at the same time."""
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    os.mkfifo(gate)
    config = {"text": "hello", "marks": str(marks), "gate": str(gate)}
    both = [process(store, "write", config) for _ in range(2)]
    try:
        until(lambda: all(holds_open(one, store.root / "locks") for one in both), both)
        until(lambda: opened(gate), both)
        answers = sorted(one.communicate(timeout=20)[0].strip() for one in both)
    finally:
        for one in both:  # one that ran the stage too would wait at the gate for ever
            one.kill()
    assert answers == ["False", "True"]
    assert marks.read_text() == "ran\n"


@pytest.mark.parametrize("damage", ["change", "add", "remove", "record"])
def test_damage_is_found_and_the_stage_built_again(store: Store, damage: str) -> None:
    folder = execute(stage(), {}, store).artifact.path
    match damage:
        case "change":
            (folder / "text.txt").write_text("hellO")
        case "add":
            (folder / "more.txt").touch()
        case "remove":
            (folder / "text.txt").unlink()
        case "record":
            (folder / "artifact.json").write_text("{")
    done = execute(stage(), {}, store)
    assert (done.cached, done.rebuilt) == (False, True)
    assert done.artifact.file("text.txt").read_text() == "hello"
    assert execute(stage(), {}, store).cached


def test_clean_drops_the_least_recently_used(store: Store) -> None:
    keys = [execute(stage(text=text), {}, store).artifact.key for text in ("a", "b", "c")]
    for age, key in enumerate(keys):
        os.utime(store.root / "uses" / key, (1000 - age, 1000 - age))  # the first was used last
    sizes = {key: size for key, size, _ in store.entries()}
    removed, freed = store.clean(sizes[keys[0]])
    assert (removed, freed) == (2, sizes[keys[1]] + sizes[keys[2]])
    assert [key for key, _, _ in store.entries()] == [keys[0]]


def test_clean_waits_for_runs_in_progress(store: Store) -> None:
    execute(stage(), {}, store)
    code = (
        "import sys; from pathlib import Path; from pipeline.core.store import Store; Store(Path(sys.argv[1])).clean(0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with store.in_use():
        cleaner = subprocess.Popen([sys.executable, "-c", code, str(store.root)], env=environment)
        with pytest.raises(subprocess.TimeoutExpired):
            cleaner.wait(timeout=1.5)
        assert len(store.entries()) == 1
    assert cleaner.wait(timeout=30) == 0
    assert store.entries() == []


def test_a_store_in_the_place_of_a_file_is_a_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        Store(tmp_path / "file").prepare()
    assert caught.value.message == f"The store {tmp_path / 'file'} is a file."
    assert "--store" in caught.value.remedy


@pytest.mark.parametrize("name", ["objects", "staging", "locks", "uses", "scratch", "work"])
def test_the_stores_own_folders_are_no_links(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError) as caught:
        Store(tmp_path / "store").prepare()
    assert caught.value.message == f"{name}/ of the store {tmp_path / 'store'} is a link."
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_store_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "big-disk")
    store = Store(tmp_path / "store")
    store.prepare()
    assert not execute(stage(), {}, store).cached
    assert execute(stage(), {}, store).cached


@pytest.mark.parametrize("name", ["work", "0" * 64])
def test_locks_follow_no_links_and_truncate_nothing(store: Store, tmp_path: Path, name: str) -> None:
    thesis = tmp_path / "thesis"
    thesis.write_text("years of work")
    (store.root / "locks" / name).symlink_to(thesis)
    with pytest.raises(StageError) as caught, store.in_use(), store.lock("0" * 64):
        pass
    assert caught.value.message == f"{store.root / 'locks' / name} is a link, where a plain file belongs."
    assert thesis.read_text() == "years of work"
    (store.root / "locks" / name).unlink()
    os.link(thesis, store.root / "locks" / name)
    with store.in_use(), store.lock("0" * 64):
        assert thesis.read_text() == "years of work"


def test_a_note_of_use_follows_no_link(store: Store, tmp_path: Path) -> None:
    key = execute(stage(), {}, store).artifact.key
    (store.root / "uses" / key).unlink()
    (store.root / "uses" / key).symlink_to(tmp_path / "new")
    with pytest.raises(StageError, match="is a link, where a plain file belongs"):
        store.find(key)
    assert not (tmp_path / "new").exists()


def test_a_builder_leaves_nothing_behind_a_link(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (store.root / "scratch" / stage().key({})).symlink_to(tmp_path / "mine")
    with pytest.raises(StageError, match="is a link, where a folder belongs"):
        execute(stage(), {}, store)
    assert leftovers(store) == []


@pytest.mark.parametrize("key", ["", "..", "../../etc", "0" * 63, "0" * 64 + "/..", "G" * 64, "/etc/passwd"])
def test_only_hashes_are_keys(store: Store, key: str) -> None:
    with pytest.raises(IntegrityError, match="is no key of the store"):
        store.find(key)


def test_clean_takes_only_what_is_the_stores(store: Store) -> None:
    """`edge clean --store` on somebody's folder that happens to have one called objects."""
    for name in ("objects/mine", "staging/mine", "scratch/mine", "work/mine"):
        (store.root / name).mkdir()
        (store.root / name / "thesis").touch()
    execute(stage(), {}, store)
    assert store.clean(0)[0] == 1
    assert sorted(path.parent.parent.name for path in store.root.rglob("thesis")) == [
        *("objects", "scratch", "staging", "work")
    ]


def test_clean_makes_no_store(tmp_path: Path) -> None:
    assert Store(tmp_path / "none").clean(0) == (0, 0)
    assert not (tmp_path / "none").exists()
    with pytest.raises(UsageError, match="is no store: it has no folder objects/"):
        Store(tmp_path).clean(0)


def test_temporary_files_of_a_run_lie_in_the_store_and_go_with_it(store: Store) -> None:
    before = tempfile.gettempdir()
    with store.in_use():
        file = Path(tempfile.mkdtemp()) / "big"
        file.touch()
        assert (store.root / "work").resolve() in file.parents
        assert os.environ["TMPDIR"] == str(file.parents[1])
    assert tempfile.gettempdir() == before
    assert list((store.root / "work").iterdir()) == []
    assert [path.name for path in (store.root / "locks").iterdir() if path.name.startswith("run-")] == []


IN_USE = """
import sys, tempfile, signal
from pathlib import Path
from pipeline.core.store import Store
with Store(Path(sys.argv[1])).in_use():
    print(tempfile.mkdtemp(), flush=True)
    signal.pause()
"""


def test_the_next_run_removes_what_a_killed_one_left_and_nothing_of_the_living(store: Store) -> None:
    def start() -> tuple[subprocess.Popen[str], Path]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", IN_USE, str(store.root)]
        one = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert one.stdout is not None
        return one, Path(one.stdout.readline().strip())

    (dead, left), (living, kept) = start(), start()
    try:
        dead.kill()
        dead.communicate()
        other = store.root / "staging" / f"{'0' * 64}-abc"
        other.mkdir()
        assert left.is_dir()
        with store.in_use():
            assert (left.exists(), kept.is_dir(), other.exists()) == (False, True, False)
    finally:
        living.kill()
        living.communicate()
