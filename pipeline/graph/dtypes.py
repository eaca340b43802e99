"""What ONNX's numbers for types of tensors stand for."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

_NO_NUMBERS = (TensorProto.BOOL, TensorProto.STRING, TensorProto.UNDEFINED)


def dtype_of(kind: int) -> np.dtype[Any]:
    """The numpy type (with those of ml_dtypes) of a tensor's `data_type`; object of strings."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(kind))


def holds_numbers(kind: int) -> bool:
    return kind not in _NO_NUMBERS


def is_floating_point(kind: int) -> bool:
    """Whether it is a real type with an exponent."""
    return holds_numbers(kind) and dtype_of(kind).name.lstrip("b").startswith("float")


def bits_of(kind: int) -> int:
    """Bits of one value as a file has it, where those of 2 and 4 bits are packed; 0 of types without a fixed number."""
    if kind in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0
    dtype = dtype_of(kind)
    if dtype.kind in "bc" or dtype.name.startswith("bfloat"):
        return dtype.itemsize * 8
    about = ml_dtypes.finfo if is_floating_point(kind) else ml_dtypes.iinfo
    return int(about(dtype).bits)
