"""What a reader of data finds: samples, their labels and their digest. Lazy samples keep memory constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, overload

T = TypeVar("T")


@dataclass(frozen=True)
class Contents:
    """`digest`: sha256 over the bytes that were read, independent of where they lie. `notes`: what was assumed to read
    them, for the report. `classes`: the names of the classes that labels number, where the data say them (sub-folders).
    `poses`: of images with objects, the objects that have keypoints, each a sample of its own.
    """

    kind: Literal["text", "words", "questions", "problems", "image", "audio", "tensor"]
    samples: Sequence[Any]
    digest: str
    labels: Sequence[Any] | None = None
    pairs: bool = False
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    poses: Contents | None = None


class Lazy(Sequence[T], Generic[T]):
    """Samples `make(i)` for i in `indices`, each made anew whenever it is asked for."""

    def __init__(self, make: Callable[[int], T], indices: Sequence[int]) -> None:
        self._make = make
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Lazy[T]: ...

    def __getitem__(self, index: int | slice) -> T | Lazy[T]:
        if isinstance(index, slice):
            return Lazy(self._make, self._indices[index])
        return self._make(self._indices[index])
