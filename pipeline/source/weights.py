"""Safetensors files of a model folder: found, and checked before anything reads them."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, parse_json, read_json_object, require_file
from pipeline.graph.stored_matrix import Stored

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
PICKLE = "pytorch_model.bin"
_METADATA = "__metadata__"
_LENGTH = struct.Struct("<Q")


def weight_files(path: Path, allow_pickle: bool = False) -> list[Path]:
    """The files that hold the weights of the model in `path`: safetensors, or with `allow_pickle` and none of those,
    what transformers calls its pickle. UsageError if there are none."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        return _shards(index)
    whole = path / "model.safetensors"
    if whole.is_file():
        return [whole]
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if allow_pickle and PICKLE in pickles:
        return [path / PICKLE]
    if pickles:
        raise UsageError(
            f"The folder {path.name!r} has its weights only as a pickle ({pickles[0]}), which can run any code.",
            "Convert it where you trust it (`model.save_pretrained(folder)` writes model.safetensors), or, for "
            f"{PICKLE}, add --allow-pickle: then tensors are read from it and nothing else.",
        )
    raise UsageError(
        f"The folder {path.name!r} has no weights.",
        "It needs model.safetensors, or model.safetensors.index.json with its shards.",
    )


def _shards(index: Path) -> list[Path]:
    entries = read_json_object(index).get("weight_map")
    if not isinstance(entries, dict) or not entries or not all(isinstance(name, str) for name in entries.values()):
        raise UsageError(f"{index.name} has no weight_map from tensors to the names of shards.", "Fetch it again.")
    names = sorted(set(entries.values()))
    for name in names:
        if Path(name).name != name or "\0" in name:
            raise UsageError(f"{index.name} names the shard {name!r}, which is outside the model's folder.")
        if Path(name).suffix != ".safetensors":
            raise UsageError(f"{index.name} names the shard {name!r}, which is no .safetensors file.")
        if not (index.parent / name).is_file():
            raise UsageError(f"The weights shard {name!r} named in {index.name} is missing.", "Fetch it again.")
    return [index.parent / name for name in names]


def check_weights(path: Path, allow_pickle: bool = False) -> None:
    """UsageError if a weights file is truncated or has no valid safetensors header."""
    for file in weight_files(path, allow_pickle):
        actual = require_file(file, Limit.WEIGHTS)
        if file.name == PICKLE:
            continue
        expected = _expected_bytes(file, actual)
        if actual != expected:
            raise UsageError(
                f"The weights file {file.name} of {path.name!r} is damaged: its header promises {expected} bytes, "
                f"it has {actual}.",
                "Download or copy it again.",
            )


def count_tensors(path: Path, allow_pickle: bool = False) -> int | None:
    """How many tensors the safetensors files of the model in `path` hold; None for a pickle."""
    files = weight_files(path, allow_pickle)
    if files[0].name == PICKLE:
        return None
    return sum(len(_header(file, file.stat().st_size)[0].keys() - {_METADATA}) for file in files)


def stored_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of the model in `path`, whose files `check_weights` has passed."""
    found = {}
    for file in weight_files(path):
        entries, begin = _header(file, file.stat().st_size)
        for name, entry in entries.items():
            if name != _METADATA:
                found[name] = _stored(file, name, entry, begin)
    return found


_ITEM = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}
"""Bytes of a value."""


def _stored(file: Path, name: str, entry: dict[str, Any], begin: int) -> Stored:
    first, last, _ = _range(file, name, entry)
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    if dtype in _ITEM and math.prod(shape) * _ITEM[dtype] != last - first:
        raise _invalid(file, f"{name!r} is {dtype} {list(shape)} and has {last - first} bytes")
    return Stored(file, dtype, shape, begin + first)


def _expected_bytes(file: Path, size: int) -> int:
    """File size after the header: 8 bytes of length, the JSON header, then the tensors (safetensors format)."""
    entries, begin = _header(file, size)
    ranges = sorted(_range(file, name, entry) for name, entry in entries.items() if name != _METADATA)
    end = 0
    for first, last, name in ranges:
        if first != end:
            raise _invalid(file, f"{name!r} begins at byte {first}, the tensor before it ends at {end}")
        end = last
    return begin + end


def _header(file: Path, size: int) -> tuple[dict[str, Any], int]:
    """The tensors by name, and where their data begins."""
    with file.open("rb") as stream:
        start = stream.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else size
        if length >= size or length > Limit.HEADER:
            raise _invalid(file, f"its length is given as {length} bytes")
        header = stream.read(length)
    entries = parse_json(header, f"The header of {file.name}")
    if not isinstance(entries, dict):
        raise _invalid(file, "it is no JSON object")
    return entries, _LENGTH.size + length


def _range(file: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """(begin, end, name) of one tensor's bytes."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _invalid(file, f"{name!r} has the data_offsets {offsets!r}")
    if not isinstance(entry.get("dtype"), str) or not _are_counts(entry.get("shape")):
        raise _invalid(file, f"{name!r} has the dtype {entry.get('dtype')!r} and the shape {entry.get('shape')!r}")
    return offsets[0], offsets[1], name


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _invalid(file: Path, reason: str) -> UsageError:
    return UsageError(
        f"The weights file {file.name} has no valid safetensors header (it is cut short or something else): {reason}.",
        "Download or copy it again.",
    )
