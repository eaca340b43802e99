"""Bytes that somebody else made: how much of a file is read, and what a parser's exceptions become.

Every reader of a user's file goes through this module, so that a device, a pipe, a file without end or a tree without
bottom is refused by one message that names the file.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

from pipeline.core.errors import EdgeError, Interrupted, UsageError, first_line
from pipeline.core.memory import is_out_of_memory
from pipeline.core.paths import read_at_most

DEPTH = 64
"""Levels of lists and tables within each other that are read from JSON and TOML."""
LOOP_SECONDS = 30
"""Seconds that one inference of a given ONNX file with loops may take: nothing else says that a loop ends."""


class Limit(IntEnum):
    """Bytes of one file that are read at most, by what it holds; characters of a `LINE`, pixels of an image (`PIXELS`,
    where Pillow warns), bytes of all arrays of an archive once unpacked (`ARRAYS`)."""

    TOML = 1_000_000
    JSON = 256_000_000
    TEMPLATE = 1_000_000
    LINE = 1_000_000
    TEXT = 1_000_000_000
    ARRAYS = 4_000_000_000
    IMAGE = 256_000_000
    PIXELS = 89_478_485
    AUDIO = 1_000_000_000
    GRAPH = 2_147_483_647
    HEADER = 100_000_000
    WEIGHTS = 64_000_000_000


def require_file(path: Path, limit: int) -> int:
    """Check that `path` is a plain file of at most `limit` bytes; its size. UsageError if not.

    Links are followed; a pipe or a device is never waited for, nor read.
    """
    if not _is_unicode(str(path)):
        raise UsageError(f"{str(path)!r} is not valid UTF-8, and no report can name it.", "Give it another name.")
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path.name!r} cannot be read: {_reason(error)}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(
            f"{path.name!r} is {_KINDS.get(stat.S_IFMT(status.st_mode), 'no file')}.", "Give a plain file."
        )
    if status.st_size > limit:
        raise UsageError(f"{path.name!r} has {status.st_size:,} bytes; at most {limit:,} are read.")
    return status.st_size


def _is_unicode(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() == text


_KINDS = {
    stat.S_IFDIR: "a folder, not a file",
    stat.S_IFIFO: "a pipe, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
    stat.S_IFSOCK: "a socket, not a file",
}


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)


def user_path(given: str | Path) -> Path:
    """A path as the user wrote it, with `~` and `~name` replaced; UsageError for a user that there is not."""
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{str(given)!r} names the home folder of a user who is not known here.") from error


def require_inside(folder: Path, file: Path, also: tuple[Path, ...] = ()) -> None:
    """UsageError if `file` is a link out of `folder` (and out of the folders `also`)."""
    real = os.path.realpath(file)
    if not any(Path(real).is_relative_to(os.path.realpath(root)) for root in (folder, *also)):
        raise UsageError(
            f"{file.name!r} in {folder.name!r} is a link to {real!r}, outside the folder.",
            "Put the file itself there.",
        )


_UNBLOCKED = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"))


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a plain file. UsageError if it is none, is larger than `limit`, or cannot be read."""
    require_file(path, limit)
    try:
        descriptor = os.open(path, os.O_RDONLY | _UNBLOCKED)
        with os.fdopen(descriptor, "rb") as file:
            return read_at_most(file, limit + 1)
    except OSError as error:
        raise UsageError(f"{path.name!r} cannot be read: {_reason(error)}.") from error


def read_text(path: Path, limit: int, encoding: str = "utf-8") -> str:
    """As `read_bytes`, decoded, with plain newlines; UsageError too for what is not UTF-8."""
    try:
        text = read_bytes(path, limit).decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path.name} is not valid UTF-8 at byte {error.start}.", "Save it as UTF-8.") from error
    return plain_newlines(text)


def plain_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. UsageError if it is no plain file, too large, malformed, or holds what no key takes
    (`plain`)."""
    text = read_text(path, Limit.TOML, "utf-8-sig")
    try:
        data = tomllib.loads(text)
    except RecursionError as error:
        raise UsageError(f"{path.name} is not valid TOML: it is nested too deeply.") from error
    except ValueError as error:  # malformed, or a number of thousands of digits
        raise UsageError(f"{path.name} is not valid TOML: {first_line(error)}.") from error
    plain(data, path.name)
    return data


def read_json(path: Path, where: str = "") -> Any:
    """What a JSON file holds; see `parse_json`. `where`: what messages call it, if not by its name."""
    return parse_json(read_text(path, Limit.JSON), where or path.name)


def read_json_object(path: Path, where: str = "") -> dict[str, Any]:
    """As `read_json`, where only an object makes sense."""
    value = read_json(path, where)
    if not isinstance(value, dict):
        raise UsageError(f"{where or path.name} is not a JSON object.")
    return value


def parse_json(text: str | bytes, where: str) -> Any:
    """JSON of at most `DEPTH` levels, whose texts can be encoded. UsageError, saying `where`, for anything else."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise UsageError(f"{where} is nested more than {DEPTH} levels deep.") from error
    except ValueError as error:  # malformed, not UTF-8, or a number of thousands of digits
        raise UsageError(f"{where} is not valid JSON: {first_line(error)}.") from error
    _check_depth(value, where)
    if _SURROGATE.search(text if isinstance(text, str) else text.decode("latin-1")):
        _check_texts(value, where)
    return value


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _check_texts(value: Any, where: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} has a text with half a surrogate pair, which is no character.") from error


def _check_depth(value: Any, where: str) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEPTH):
        children = (item.values() if isinstance(item, dict) else item for item in level)
        level = [child for group in children for child in group if isinstance(child, (dict, list))]
        if not level:
            return
    if level:
        raise UsageError(f"{where} is nested more than {DEPTH} levels deep.")


_PYTHON = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,  # with RecursionError and NotImplementedError
    SyntaxError,
    TypeError,
    ValueError,
)
_LIBRARIES = (
    *("PIL", "_lzma", "csv", "_csv", "google", "struct", "wave", "zipfile", "zlib"),
    *("huggingface_hub", "jinja2", "onnx", "onnx_ir", "onnxscript", "pydantic_core", "safetensors"),
    *("safetensors_rust", "tokenizers", "transformers"),
)
"""Packages that raise exception classes of their own."""


def is_refusal(error: BaseException) -> bool:
    """Whether a library that was given odd values raises this: what Python's own operations raise, the library's own
    classes, `Exception` itself (tokenizers) and a panic (Rust). Not an interruption, and no error of ours."""
    if isinstance(error, EdgeError):
        return False
    kind = type(error)
    own = kind.__module__.partition(".")[0] in _LIBRARIES
    return isinstance(error, _PYTHON) or own or kind is Exception or kind.__name__ == "PanicException"


@contextmanager
def refused(what: str, remedy: str = "", kind: type[EdgeError] = UsageError) -> Iterator[None]:
    """Around a library that reads a user's values by itself: what it raises over them becomes one message,
    `{what}: {its reason}`. Running out of memory stays what it is."""
    try:
        yield
    except BaseException as error:
        if not is_refusal(error) or is_out_of_memory(error):
            raise
        raise kind(f"{what}: {said(error)}", remedy) from error


@contextmanager
def users_code(
    message: Callable[[BaseException], str], remedy: str = "", kind: type[EdgeError] = UsageError
) -> Iterator[None]:
    """Around code that the user names: it may raise anything, `SystemExit` and `KeyboardInterrupt` too, and must not
    end this process by it. `message` says what was raised. The working folder and the standard streams are ours again
    afterwards."""
    folder, streams = Path.cwd(), (sys.stdout, sys.stderr)
    try:
        yield
    except BaseException as error:
        if isinstance(error, (EdgeError, Interrupted)) or is_out_of_memory(error):
            raise
        raise kind(message(error), remedy) from error
    finally:
        os.chdir(folder)
        sys.stdout, sys.stderr = streams


def words(error: BaseException) -> str:
    """The message of an exception of the user's own class, whose `__str__` may itself fail."""
    try:
        return str(error)[:_SAID]
    except Exception as odd:
        if isinstance(odd, EdgeError):
            raise
        return "(it cannot be shown)"


_SAID = 2000


def said(error: BaseException) -> str:
    """The first line of an exception's message; with its class where that alone says nothing."""
    line = first_line(error)
    return line if " " in line else f"{type(error).__name__}: {line}"


_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def shown(text: str) -> str:
    """`text` with what a terminal obeys or what turns the direction of writing written as in JSON: `\\u001b`. Tabs and
    newlines stay."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def plain(value: Any, where: str) -> None:
    """UsageError if a tree from TOML holds what no field here takes: dates, numbers that are not finite or beyond 64
    bits, or more than `DEPTH` levels."""
    level: list[tuple[str, Any]] = [("", value)]
    for _ in range(DEPTH):
        for name, item in level:
            _check_scalar(name, item, where)
        level = [pair for name, item in level for pair in _children(name, item)]
        if not level:
            return
    raise UsageError(f"{where} is nested more than {DEPTH} levels deep.")


def _children(name: str, item: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(item, Mapping):
        yield from ((f"{name}.{key}".lstrip("."), child) for key, child in item.items())
    elif isinstance(item, list):
        yield from ((f"{name}.{place}".lstrip("."), child) for place, child in enumerate(item))


def _check_scalar(name: str, item: Any, where: str) -> None:
    if isinstance(item, int) and not -(2**63) <= item < 2**63:
        raise UsageError(f"{where}: {name} is a number beyond 64 bits.")
    if isinstance(item, float) and not abs(item) < float("inf"):
        raise UsageError(f"{where}: {name} is {item}, which is not a finite number.")
    if not isinstance(item, (str, int, float, list, Mapping)):
        raise UsageError(f"{where}: {name} is a date or a time; no key here takes one.")
