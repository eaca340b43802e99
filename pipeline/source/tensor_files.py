"""Model inputs, or images, from .npz files. Pickles are never opened."""

from __future__ import annotations

import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.source.contents import Contents, Lazy

LABELS = ("y", "labels")
Arrays = dict[str, NDArray[Any]]


def read_tensors(path: Path) -> Contents:
    """Samples of an .npz file whose arrays have the samples on their first axis.

    One uint8 array [N, H, W, 3] is images; any other set is model inputs by name, a dict of arrays without
    the sample axis per sample. `y` or `labels` holds class indices, class names or numbers [N], or several
    per sample [N, labels].
    UsageError for pickles, arrays of objects or texts, unequal lengths, bad labels, and no samples.
    """
    arrays = _load(path)
    labels = _take_labels(arrays, path.name)
    count = _count(arrays, labels, path.name)
    numbers = None if labels is None else _plain(labels)
    digest = sha256_json({".npz": sha256_file(path)})
    if _are_images(arrays):
        (images,) = arrays.values()
        return Contents("image", Lazy(images.__getitem__, range(count)), digest, numbers)
    return Contents("tensor", Lazy(partial(_sample, arrays), range(count)), digest, numbers)


def _load(path: Path) -> Arrays:
    try:
        zipfile.ZipFile(path).close()
    except zipfile.BadZipFile as error:
        message = f"{path.name} is not an .npz archive: damaged, or a pickle, which is refused as unsafe."
        raise UsageError(message, "Write it with numpy.savez.") from error
    with np.load(path, allow_pickle=False) as archive:
        return {name: _array(archive, name, path.name) for name in archive.files}


def _array(archive: Any, name: str, file: str) -> NDArray[Any]:
    try:
        array = archive[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise UsageError(
                f"{file}: the array {name!r} holds Python objects (a pickle), which is refused as unsafe.",
                "Save arrays of numbers only.",
            ) from error
        raise UsageError(f"{file}: the array {name!r} cannot be read: {error}.", "Write it again.") from error
    allowed = "biufU" if name in LABELS else "biuf"
    if not isinstance(array, np.ndarray) or array.dtype.kind not in allowed:
        given = getattr(array, "dtype", "no array")
        raise UsageError(f"{file}: {name!r} is {given}; allowed are booleans, integers and floats.")
    return array


def _take_labels(arrays: Arrays, file: str) -> NDArray[Any] | None:
    """Remove the labels from `arrays`."""
    found = [name for name in LABELS if name in arrays]
    if len(found) > 1:
        raise UsageError(f"{file} has both 'y' and 'labels'.", "Keep one of them.")
    if not found:
        return None
    labels = arrays.pop(found[0])
    finite = labels.dtype.kind in "Ubiu" or bool(np.isfinite(labels).all())
    if labels.ndim not in (1, 2) or not finite:
        raise UsageError(
            f"{file}: {found[0]!r} is {labels.dtype} {labels.shape}; labels are class indices, class names or finite "
            "numbers of shape (N,) or (N, labels).",
            "Give one per sample, or one for each label of it.",
        )
    return labels


def _plain(labels: NDArray[Any]) -> list[Any]:
    """Whole numbers as integers, whatever the dtype."""
    whole = labels.dtype.kind in "biu" or (labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all()))
    listed: list[Any] = (labels.astype(np.int64) if whole else labels).tolist()
    return listed


def _count(arrays: Arrays, labels: NDArray[Any] | None, file: str) -> int:
    every = {**arrays, **({} if labels is None else {"labels": labels})}
    shapes = {name: array.shape[:1] for name, array in every.items()}
    if not arrays or () in shapes.values() or (0,) in shapes.values():
        raise UsageError(f"{file} has no samples.", "Give arrays with the samples on the first axis.")
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape[0]}" for name, shape in shapes.items())
        raise UsageError(f"{file} has arrays of unequal length: {listed}.", "Give each the same samples.")
    return int(next(iter(shapes.values()))[0])


def _are_images(arrays: Arrays) -> bool:
    """One uint8 array [N, H, W, 3] and nothing else."""
    (only, *others) = arrays.values()
    return not others and only.dtype == np.uint8 and only.ndim == 4 and only.shape[3] == 3


def _sample(arrays: Arrays, index: int) -> Arrays:
    return {name: array[index] for name, array in arrays.items()}
