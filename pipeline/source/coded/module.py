"""A weight of a checkpoint that is codes, before it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.core.errors import UsageError
from pipeline.numerics.blocks import Bits
from pipeline.numerics.coded import SMALLEST_BLOCK, Coded


@dataclass(frozen=True)
class CodedModule:
    """`name`: of the float weight [rows, columns] that its codes stand for. `group`: columns that share a scale.
    `tensors`: those of the checkpoint that `read` reads."""

    name: str
    bits: Bits
    group: int
    tensors: tuple[str, ...]
    read: Callable[[], Coded]


def require_bits(name: str, bits: int | None) -> Bits:
    """UsageError for codes of a width that ONNX Runtime does not multiply."""
    if bits not in (8, 4, 2):
        said = "no whole number of" if bits is None else str(bits)
        raise UsageError(
            f"{name!r} is stored in {said} bits; ONNX Runtime's products take codes of 2, 4 or 8.",
            "Give a checkpoint of one of these, or the float one that it was made from.",
        )
    return bits  # type: ignore[return-value]  # one of the three


def group_of(name: str, columns: int, groups: int, said: int | None = None) -> int:
    """Columns that share a scale, as the number of groups tells, or of a last one that is shorter the settings.

    UsageError if no block of MatMulNBits (a power of two, 16 at least) fills such a group.
    """
    size = columns if groups == 1 else said if said and said > 0 else columns // max(groups, 1)
    if groups < 1 or size < 1 or -(-columns // size) != groups:
        raise UsageError(
            f"{name!r} has {groups} groups of {size} for {columns} columns.",
            "Its tensors must be of one quantization: download or copy the checkpoint again.",
        )
    if groups > 1 and size % SMALLEST_BLOCK:
        raise UsageError(
            f"{name!r} has a scale for every {size} columns; ONNX Runtime's blocks have {SMALLEST_BLOCK}, 32, 64, ...",
            "Give a checkpoint with groups of such a size, or the float one that it was made from.",
        )
    return size
