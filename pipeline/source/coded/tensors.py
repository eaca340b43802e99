"""The tensors of a folder's safetensors files, by name: shapes are known before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import refused
from pipeline.graph.stored_matrix import Stored
from pipeline.numerics.coded import sorted_groups
from pipeline.source.weights import stored_tensors

_BFLOAT16 = "BF16"


@dataclass(frozen=True)
class Tensors:
    """What the headers of vetted files say (`source.weights`), and the reading of one tensor at a time."""

    folder: Path
    stored: Mapping[str, Stored]

    @classmethod
    def of(cls, folder: Path) -> Tensors:
        return cls(folder, stored_tensors(folder))

    def shape(self, name: str) -> tuple[int, ...]:
        """UsageError if there is no such tensor."""
        if name not in self.stored:
            raise UsageError(
                f"The checkpoint {self.folder.name!r} has no tensor {name!r}, which its codes need.",
                "Download or copy it again.",
            )
        return self.stored[name].shape

    def require(self, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        """UsageError if a tensor is not of this shape and one of these dtypes (as safetensors names them)."""
        if self.shape(name) != shape or self.stored[name].dtype not in dtypes:
            raise UsageError(
                f"The checkpoint {self.folder.name!r} has {name!r} as {self.stored[name].dtype} "
                f"{list(self.shape(name))}; its other tensors ask for {' or '.join(dtypes)} {list(shape)}.",
                "The tensors of a layer must be of one quantization: download or copy the checkpoint again.",
            )

    def read(self, name: str) -> NDArray[Any]:
        """One tensor; bfloat16 becomes float32, which holds all of its values."""
        entry = self.stored[name]
        if entry.dtype == _BFLOAT16:
            return _bfloat16(entry)
        with (
            refused(f"The weights file {entry.file.name} cannot be read", "Download or copy it again."),
            safe_open(entry.file, framework="np") as file,
        ):
            return file.get_tensor(name)

    def words(self, name: str) -> NDArray[np.uint32]:
        """One tensor of int32 words, whose bits are codes."""
        return self.read(name).view(np.uint32)


def _bfloat16(entry: Stored) -> NDArray[np.float32]:
    """The high halves of float32 numbers."""
    count = int(np.prod(entry.shape, dtype=np.int64))
    high = np.fromfile(entry.file, "<u2", count, offset=entry.begin)
    return (high.astype(np.uint32) << 16).view(np.float32).reshape(entry.shape)


FLOATS = ("F16", "BF16", "F32")
"""Dtypes of scales, and of weights that are no codes."""


def group_order(tensors: Tensors, name: str, columns: int, groups: int, group: int) -> NDArray[np.int64] | None:
    """Of act-order, the columns in the order of their groups, which the tensor `name` numbers; None if they are in it
    (-1 for all says that too), or there is no such tensor. UsageError if a group has too many or too few."""
    if name not in tensors.stored or groups == 1:
        return None
    tensors.require(name, ("I32", "I64"), (columns,))
    found = tensors.read(name).astype(np.int64)
    if (found == -1).all():
        return None
    try:
        return sorted_groups(found, group)
    except ValueError as error:
        raise UsageError(
            f"{name!r} of {tensors.folder.name!r} cannot be followed: {error}.",
            "Download or copy the checkpoint again.",
        ) from error
