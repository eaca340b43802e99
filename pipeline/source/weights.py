"""Safetensors files of a model folder: found, and checked before anything reads them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from pipeline.core.errors import UsageError

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
PICKLE = "pytorch_model.bin"
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
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{index.name} cannot be read: {error!r}.") from error
    for name in names:
        if Path(name).name != name:
            raise UsageError(f"{index.name} names the shard {name!r}, which is outside the model's folder.")
        if not (index.parent / name).is_file():
            raise UsageError(f"The weights shard {name!r} named in {index.name} is missing.", "Fetch it again.")
    return [index.parent / name for name in names]


def check_weights(path: Path, allow_pickle: bool = False) -> None:
    """UsageError if a weights file is truncated or has no valid safetensors header."""
    for file in weight_files(path, allow_pickle):
        if file.name == PICKLE:
            continue
        expected = _expected_bytes(file)
        actual = file.stat().st_size
        if actual != expected:
            raise UsageError(
                f"The weights file {file.name} of {path.name!r} is damaged: its header promises {expected} bytes, "
                f"it has {actual}.",
                "Download or copy it again.",
            )


def _expected_bytes(file: Path) -> int:
    """File size after the header: 8 bytes of length, the JSON header, then the tensors (safetensors format)."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else size
        header = stream.read(length) if length < size else b""
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"The weights file {file.name} has no valid safetensors header (it is cut short or something else).",
            "Download or copy it again.",
        ) from error
    return int(_LENGTH.size + length + max(ends, default=0))
