"""GGUF files of llama.cpp, beside the config.json and the tokenizer of the model that they were made from.

The layout is the format's specification (ggml, docs/gguf.md): a header with counts, key-value pairs, the names, sizes
and types of tensors, then their data. Sizes are written with the inner axis first.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, require_file
from pipeline.numerics.affine import Float
from pipeline.numerics.coded import GGUF_BLOCKS, Coded, read_gguf

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_ALIGNMENT, _ARCHITECTURE, _HEADS, _KEY_HEADS = (
    "general.alignment",
    "general.architecture",
    "{}.attention.head_count",
    "{}.attention.head_count_kv",
)
_LONGEST = 1 << 16
"""Bytes of a name."""
_AXES = 4
_TEXT, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of values (enum gguf_metadata_value_type), as `struct` names them."""
_FLOATS = {0: "<f4", 1: "<f2", 30: "<u2"}
"""Types of tensors that are no codes: float32, float16, bfloat16."""
_TYPE_NAMES = {
    **{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K"},
    **{12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 30: "BF16"},
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NUMBER = re.compile(r"[0-9]{1,6}")
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_TURNED = {"llama": ("attn_q", "attn_k"), "qwen2": (), "qwen3": ()}
"""Architectures whose tensors have these names; and the modules of each whose rows llama.cpp has in another order, in
which the two halves of a rotary head alternate (convert_hf_to_gguf.py, LlamaModel.permute)."""
_COMPUTED = "rope_freqs"
"""Made of config.json, which transformers reads itself."""


@dataclass(frozen=True)
class _Stored:
    """A tensor: `shape` with the outer axis first, as numpy has it; `begin`: the byte of the file where it begins."""

    shape: tuple[int, ...]
    kind: int
    begin: int


@dataclass(frozen=True)
class GgufTensor:
    """`name` as transformers calls it; `coded`: whether it is codes. `read` gives those, or float32."""

    name: str
    kind: str
    coded: bool
    read: Callable[[], Coded | Float]


def gguf_tensors(path: Path) -> list[GgufTensor]:
    """What the file holds; nothing of it is read yet. UsageError if it is no GGUF file, is damaged, or holds what is
    not taken."""
    header = _read_header(path)
    architecture = header.values.get(_ARCHITECTURE)
    if architecture not in _TURNED:
        raise UsageError(
            f"{path.name!r} is a GGUF file of the architecture {architecture!r}; {', '.join(_TURNED)} are read.",
            "Give the model's safetensors.",
        )
    heads = {part: header.values.get(key.format(architecture)) for part, key in _HEAD_KEYS.items()}
    return [
        _tensor(path, name, stored, heads, _TURNED[architecture])
        for name, stored in header.tensors.items()
        if not name.startswith(_COMPUTED)
    ]


_HEAD_KEYS = {"attn_q": _HEADS, "attn_k": _KEY_HEADS}


def _tensor(path: Path, name: str, stored: _Stored, heads: dict[str, Any], turned: tuple[str, ...]) -> GgufTensor:
    module, _, end = name.rpartition(".")
    part = module.rpartition(".")[2]
    full = _full_name(path, module, part, end)
    kind = _TYPE_NAMES.get(stored.kind, f"number {stored.kind}")
    if stored.kind not in _FLOATS and (stored.kind not in GGUF_BLOCKS or len(stored.shape) != 2):
        raise UsageError(
            f"{path.name!r} has {name!r} as {kind} {list(stored.shape)}; of codes, matrices of "
            f"{', '.join(_TYPE_NAMES[number] for number in GGUF_BLOCKS)} are read.",
            "Quantize the model to one of these types (llama-quantize), or give its safetensors.",
        )
    rows = _rows(path, name, stored, heads[part]) if part in turned else None
    if stored.kind in _FLOATS:
        return GgufTensor(full, kind, False, partial(_floats, path, stored, rows))
    return GgufTensor(full, kind, True, partial(_codes, path, stored, rows))


def _full_name(path: Path, module: str, part: str, end: str) -> str:
    """The name in transformers."""
    pieces = module.split(".")
    if module in _WHOLE:
        return f"{_WHOLE[module]}.{end}"
    if len(pieces) == 3 and pieces[0] == "blk" and _LAYER_NUMBER.fullmatch(pieces[1]) and part in _LAYER:
        return f"model.layers.{int(pieces[1])}.{_LAYER[part]}.{end}"
    raise UsageError(
        f"{path.name!r} has a tensor {module!r}, which no layer of its architecture is known to have.",
        "Give the model's safetensors.",
    )


def _rows(path: Path, name: str, stored: _Stored, heads: Any) -> NDArray[np.int64]:
    """The rows of the tensor in transformers' order: of each head the first half, then the second."""
    count = stored.shape[0]
    if type(heads) is not int or heads < 1 or count % (2 * heads):
        raise UsageError(
            f"{path.name!r} has {name!r} with {count} rows, which {heads!r} heads do not share.", "Download it again."
        )
    return np.arange(count).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _floats(path: Path, stored: _Stored, rows: NDArray[np.int64] | None) -> Float:
    kind = _FLOATS[stored.kind]
    data = np.fromfile(path, kind, _count(stored.shape), offset=stored.begin)
    values = (data.astype(np.uint32) << 16).view(np.float32) if kind == "<u2" else data.astype(np.float32)
    values = values.reshape(stored.shape)
    return values if rows is None else values[rows]


def _codes(path: Path, stored: _Stored, rows: NDArray[np.int64] | None) -> Coded:
    values, size = GGUF_BLOCKS[stored.kind]
    blocks = _count(stored.shape) // values
    data = np.fromfile(path, np.uint8, blocks * size, offset=stored.begin)
    coded = read_gguf(data.reshape(stored.shape[0], -1, size), stored.kind)
    return coded if rows is None else coded.taken(rows)


def _count(shape: tuple[int, ...]) -> int:
    found = 1
    for size in shape:
        found *= size
    return found


@dataclass(frozen=True)
class _Header:
    """Values that are numbers or texts, by key, and the tensors by name."""

    values: dict[str, Any]
    tensors: dict[str, _Stored]


def _read_header(path: Path) -> _Header:
    """UsageError for what no such file has: counts and lengths are believed only as far as the file has bytes."""
    size = require_file(path, Limit.WEIGHTS)
    with path.open("rb") as file:
        reader = _Reader(file, path, min(size, Limit.HEADER))
        if reader.take(4) != _MAGIC or reader.number("I") not in _VERSIONS:
            raise reader.invalid("it does not begin with GGUF and a version of 2 or 3")
        tensors, pairs = reader.number("Q"), reader.number("Q")
        values = dict(reader.pair() for _ in range(pairs))
        entries = [reader.entry() for _ in range(tensors)]
        aligned = values.get(_ALIGNMENT, 32)
        if type(aligned) is not int or aligned < 1:
            raise reader.invalid(f"its {_ALIGNMENT} is {aligned!r}")
        begin = -(-file.tell() // aligned) * aligned
        return _Header(
            values,
            {name: reader.placed(name, shape, kind, begin + offset, size) for name, shape, kind, offset in entries},
        )


class _Reader:
    """Reads numbers and texts, of a header of at most `limit` bytes."""

    def __init__(self, file: BinaryIO, path: Path, limit: int) -> None:
        self._file, self._path, self._limit = file, path, limit

    def invalid(self, reason: str) -> UsageError:
        return UsageError(f"{self._path.name!r} is no valid GGUF file: {reason}.", "Download or copy it again.")

    def take(self, count: int) -> bytes:
        if count > self._limit - self._file.tell():
            raise self.invalid(f"its header ends before byte {self._file.tell() + count:,}")
        return self._file.read(count)

    def number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def text(self, longest: int = Limit.HEADER) -> str:
        count = self.number("Q")
        if count > longest:
            raise self.invalid(f"a text has {count:,} bytes")
        return self.take(count).decode("utf-8", "replace")

    def pair(self) -> tuple[str, Any]:
        return self.text(_LONGEST), self.value(self.number("I"))

    def value(self, kind: int) -> Any:
        """A number or a text; None for a list, which is passed over."""
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            return self._pass_over(self.number("I"), self.number("Q"))
        if kind not in _SCALARS:
            raise self.invalid(f"a value has the type {kind}")
        return self.number(_SCALARS[kind])

    def _pass_over(self, kind: int, count: int) -> None:
        if kind in _SCALARS:
            self.take(count * struct.calcsize(f"<{_SCALARS[kind]}"))
        elif kind == _TEXT:
            for _ in range(count):
                self.text()
        else:
            raise self.invalid(f"a list has the type {kind}")

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and offset of a tensor."""
        name, axes = self.text(_LONGEST), self.number("I")
        if axes > _AXES:
            raise self.invalid(f"{name!r} has {axes} axes")
        shape = tuple(self.number("Q") for _ in range(axes))[::-1]
        return name, shape, self.number("I"), self.number("Q")

    def placed(self, name: str, shape: tuple[int, ...], kind: int, begin: int, size: int) -> _Stored:
        """UsageError if the tensor's bytes are not all there."""
        values, bytes_each = GGUF_BLOCKS.get(kind, (1, {0: 4, 1: 2, 30: 2}.get(kind, 0)))
        if not shape or min(shape) < 1 or shape[-1] % values or begin + _count(shape) // values * bytes_each > size:
            raise self.invalid(f"{name!r} has the shape {list(shape)} and ends beyond the file's {size:,} bytes")
        return _Stored(shape, kind, begin)
