"""JSON documents that others may have written or changed: bounded, and with one kind of error."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NoReturn

from pipeline.core.paths import FILE, kind_of, open_plain, read_at_most
from pipeline.core.types import Json

MAX_BYTES = 64_000_000
"""The longest JSON file that is read; a report of the largest model tried has 2 MB."""


class DocumentError(Exception):
    """What is wrong with a JSON file, as the end of a sentence that begins with its name."""


def read_bounded(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """All bytes of a plain file. DocumentError if there is none, it is something else, or it is longer."""
    try:
        kind = kind_of(path)
        if kind != FILE:
            raise DocumentError("is missing" if kind == "nothing" else f"is {kind}")
        with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
            content = read_at_most(file, max_bytes + 1)
    except (OSError, ValueError) as error:
        raise DocumentError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > max_bytes:
        raise DocumentError(f"is longer than {max_bytes / 1e6:g} MB")
    return content


def parse_json(content: bytes | str) -> Json:
    """The value of a JSON text; DocumentError for anything else, for NaN and infinity, and for a key given twice."""
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise DocumentError(f"is not valid JSON: {reason}") from error


def read_json(path: Path, max_bytes: int = MAX_BYTES) -> Json:
    """The value of a JSON file, which may have come from anybody. DocumentError if it has none."""
    return parse_json(read_bounded(path, max_bytes))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it has the number {constant}")


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a key is given twice")
    return record
