"""What may stand at a place that somebody names, and writing there without following links."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import UsageError
from pipeline.core.paths import folder_name, is_unfinished, link, require_place, require_swappable, write_whole


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


ODD: dict[str, Callable[[Path], object]] = {
    "a file": Path.touch,
    "a link": lambda path: path.symlink_to(path.parent),
    "a FIFO": os.mkfifo,
    "a socket": _socket,
}


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        require_place(path, "The output x", "Do this.")
    assert caught.value.remedy == "Do this."
    return caught.value.message


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may have 107 bytes
    ODD[kind](Path("x"))
    assert refused(Path("x")) == f"The output x is {kind}."
    if kind != "a link":  # this one leads to a folder
        assert refused(Path("x/y/z")) == f"The output x lies below {tmp_path / 'x'}, which is no folder."


def test_devices_and_broken_links(tmp_path: Path) -> None:
    assert refused(Path("/dev/null")) == "The output x is a device."
    (tmp_path / "broken").symlink_to("nowhere")
    assert refused(tmp_path / "broken") == "The output x is a link."
    (tmp_path / "loop").symlink_to("loop")
    assert refused(tmp_path / "loop") == "The output x is a link."
    assert refused(tmp_path / "loop" / "y").startswith("The output x ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", "The output x has a NUL byte in its name."),
        ("n" * 256, "The output x... is too long: a name may have 220 bytes, a path 3900."),
        ("/".join(["n" * 200] * 30), "The output x... is too long: a name may have 220 bytes, a path 3900."),
    ],
)
def test_names_that_no_file_system_takes(tmp_path: Path, name: str, message: str) -> None:
    assert refused(tmp_path / name) == message


def test_what_can_be_made(tmp_path: Path) -> None:
    require_place(tmp_path, "x", "")
    require_place(tmp_path / "new" / "below" / ".." / "that", "x", "")
    (tmp_path / "link").symlink_to(tmp_path)
    require_place(tmp_path / "link" / "new", "x", "")  # links on the way are the user's own business
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_what_this_user_may_not_write_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert refused(tmp_path / "new") == f"The output x cannot be written to: {tmp_path} is read-only for this user."


def test_a_folder_that_cannot_be_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (Path(), Path(".."), tmp_path, tmp_path.parent, Path("/")):
        with pytest.raises(UsageError, match=r"is the working folder or holds it"):
            require_swappable(place, "The output", "")
    with pytest.raises(UsageError, match=r"is a mount point"):
        require_swappable(Path("/proc"), "The output", "")
    require_swappable(tmp_path / "new", "The output", "")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "one\n")
    write_whole(tmp_path / "a", "two\n")
    assert (tmp_path / "a").read_bytes() == b"two\n"
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a", "\ud800")
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(UsageError, match="is a link; a file is written there"):
        write_whole(tmp_path / "link", "three")
    assert (tmp_path / "a").read_bytes() == b"two\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link"]
    (tmp_path / ".a.edge-new-abcdef_1").touch()
    assert [path.name for path in tmp_path.iterdir() if is_unfinished(path)] == [".a.edge-new-abcdef_1"]


def test_names_as_folders() -> None:
    for name in ("all-MiniLM-L6-v2", "my model.v2", "mön", "模型"):
        assert folder_name(name) == name
    assert folder_name("..") == "_.-5ec1f7e7"
    assert folder_name("a/b") == "a_b-c14cddc0"
    assert folder_name("a\\b") != folder_name("a/b")
    assert folder_name("\x1b[31m").startswith("_[31m-")


@given(st.text(max_size=300))
def test_any_name_becomes_one_part_of_a_path(name: str) -> None:
    made = folder_name(name)
    assert Path(made).parts == (made,)
    assert made not in ("", ".", "..")
    assert made[0] != "."
    assert made.isprintable()
    assert len(made.encode()) <= 110
    assert folder_name(made) == made or len(made.encode()) > 100


def test_a_link_is_the_same_file_under_another_name(tmp_path: Path) -> None:
    file, place, other = tmp_path / "file", tmp_path / "place", tmp_path / "other"
    file.write_text("weights")
    other.symlink_to(file)
    link(other, place)
    assert place.samefile(file) and not place.is_symlink()
    link(file, place)  # again, in its own place
    assert place.read_text() == "weights"


def test_a_copy_stands_where_no_link_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    (tmp_path / "file").write_text("weights")
    link(tmp_path / "file", tmp_path / "place")
    assert (tmp_path / "place").read_text() == "weights"
    assert not (tmp_path / "place").samefile(tmp_path / "file")
