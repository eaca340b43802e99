"""Places on disk that a user names or others can reach: what may stand there, and writing without following links."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import AfterValidator

from pipeline.core.digest import sha256_text
from pipeline.core.errors import StageError, UsageError

NOTHING, FILE, FOLDER = "nothing", "a file", "a folder"
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: FOLDER,
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_PIECE = 1 << 20
_LONGEST_NAME = 220
"""Bytes of a name; file systems take 255, and the folders that an export fills and swaps have the name in theirs."""
_LONGEST_PATH = 3900
"""Bytes of a path; Linux takes 4096, and a bundle has folders below it."""
_FRESH = ".edge-new-"
_FRESH_FILE = re.compile(r"\..+\.edge-new-[a-z0-9_]{8}")


def kind_of(path: Path) -> str:
    """What stands at `path`, in words; links are not followed. OSError if the system does not tell."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING
    return _KINDS.get(stat.S_IFMT(mode), "something odd")


def require_place(path: Path, what: str, remedy: str) -> None:
    """UsageError unless `path` is a folder that can be written to, or one can be made there. Makes nothing.

    `what`: the place's name in messages, like "The output out". Links are followed in the path to it only.
    """
    whole = os.fsencode(path)
    if b"\0" in whole:
        raise UsageError(f"{what} has a NUL byte in its name.", remedy)
    longest = max(len(part) for part in whole.split(b"/"))
    if longest > _LONGEST_NAME or len(os.path.abspath(whole)) > _LONGEST_PATH:  # noqa: PTH100  # resolves no links
        limits = f"a name may have {_LONGEST_NAME} bytes, a path {_LONGEST_PATH}"
        raise UsageError(f"{what[:80]}... is too long: {limits}.", remedy)
    try:
        kind = kind_of(path)
        if kind not in (NOTHING, FOLDER):
            raise UsageError(f"{what} is {kind}.", remedy)
        _require_writable(path, kind, what, remedy)
    except OSError as error:
        raise UsageError(f"{what} cannot be written to: {error.strerror}.", remedy) from error


def _require_writable(path: Path, kind: str, what: str, remedy: str) -> None:
    """The folder, or the nearest one above it that is there."""
    place = anchored(path)
    if kind == NOTHING:
        place = next(above for above in place.parents if kind_of(above) != NOTHING)
    if not place.is_dir():
        raise UsageError(f"{what} lies below {place}, which is no folder.", remedy)
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{what} cannot be written to: {place} is read-only for this user.", remedy)


def anchored(path: Path) -> Path:
    """`path` from the root of the file system, with the links in the way to it followed, and one at its end not."""
    if path.name in ("", ".."):
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def require_swappable(path: Path, what: str, remedy: str) -> None:
    """UsageError if `path` is a folder that cannot be replaced as a whole: a mount point, the working folder or one
    above it, or one in a folder that cannot be written to."""
    whole = anchored(path)
    if Path.cwd().is_relative_to(whole):
        raise UsageError(f"{what} is the working folder or holds it; an export replaces a folder as a whole.", remedy)
    if path.is_mount():
        raise UsageError(f"{what} is a mount point; an export replaces a folder as a whole.", remedy)
    if whole.exists() and not os.access(whole.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{what} cannot be replaced: {whole.parent} is read-only for this user.", remedy)


PLAIN_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"))
"""What no link or FIFO is opened with, and no child gets; each system has some of these."""


def open_plain(path: Path, flags: int) -> int:
    """A descriptor of the plain file `path`, made if `flags` say so. Links are not followed.

    StageError if a link, FIFO, folder or device is in its place.
    """
    try:
        descriptor = os.open(path, flags | PLAIN_FLAGS, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EMLINK):
            raise odd_place(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise odd_place(path)
    return descriptor


def odd_place(path: Path, belongs: str = "a plain file") -> StageError:
    """What to raise where something else than a file or folder of ours stands."""
    return StageError(f"{path} is {kind_of(path)}, where {belongs} belongs.", "Remove it and run the command again.")


def write_whole(path: Path, content: str, mode: int = 0o644) -> None:
    """Write a text file (UTF-8, LF) so that nobody sees half of it. UsageError if anything but a file is there."""
    kind = kind_of(path)
    if kind not in (NOTHING, FILE):
        raise UsageError(f"{path} is {kind}; a file is written there.", "Remove it, or name another place.")
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name[:_LONGEST_NAME]}{_FRESH}", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
        Path(fresh).chmod(mode)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def link(file: Path, place: Path) -> None:
    """Give a file another name, in the place of what has it; where the file system has no such links, or not from
    there to here, a copy."""
    place.unlink(missing_ok=True)
    try:
        os.link(os.path.realpath(file), place)
    except OSError:
        shutil.copyfile(file, place)


def is_unfinished(path: Path) -> bool:
    """Whether it is a file that `write_whole` left when it was killed, or is writing now."""
    return _FRESH_FILE.fullmatch(path.name) is not None and kind_of(path) == FILE


def folder_name(name: str) -> str:
    """`name` as one part of a path: unchanged if it can be that, else with `_` for what cannot be shown or has a
    meaning in paths, cut to 100 bytes, and with a part of its hash, so that two names don't meet."""
    safe = "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in name).strip() or "_"
    safe = f"_{safe[1:]}" if safe[0] in ".~-" else safe
    safe = safe.encode()[:100].decode(errors="ignore")
    return safe if safe == name else f"{safe}-{sha256_text(name.encode('utf-8', 'backslashreplace').decode())[:8]}"


def _name(name: str) -> str:
    if folder_name(name) != name:
        raise ValueError(
            "a name has 1 to 100 bytes that can be shown, no / or \\, and does not begin with a dot, - or ~"
        )
    return name


Name = Annotated[str, AfterValidator(_name)]
"""A name that users give and that becomes a part of paths."""


def read_at_most(file: BinaryIO, count: int) -> bytes:
    """The next `count` bytes, or what there is, in pieces: `read(count)` sets memory aside for all of them at once."""
    pieces, left = [], count
    while left and (piece := file.read(min(left, _PIECE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
