"""Arrays of .npy files that somebody else may have written."""

from __future__ import annotations

import math
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_PARSING = (SyntaxError, TokenError, RecursionError, MemoryError)
NO_HEADER = (OSError, ValueError, TypeError, KeyError, OverflowError, *_PARSING)
"""What numpy's header parser raises for bytes that are no header."""


def read_npy(file: BinaryIO, end: int) -> NDArray[Any]:
    """The array that begins where the file stands: plain numbers, no more than there are bytes until `end`, so that no
    header claims more. ValueError, or another of `NO_HEADER`, for anything else."""
    shape, dtype, begin, order = _header(file)
    size = math.prod(shape) * dtype.itemsize
    if dtype.kind not in "biuf" or min(shape, default=0) < 0 or begin + size > end:
        raise ValueError(f"{dtype} {list(shape)} does not fit {end - begin} bytes")
    return np.ndarray(shape, dtype, bytearray(file.read(size)), order=order)


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any], int, Any]:
    """(shape, dtype, offset of the values, their order)."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format is {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, dtype, file.tell(), "F" if fortran else "C"
