"""Model inputs, or images, from .npz files. Pickles are never opened."""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, refused, require_file
from pipeline.data.lazy import Contents, Lazy

LABELS = ("y", "labels")
Arrays = dict[str, NDArray[Any]]


def read_tensors(path: Path) -> Contents:
    """Samples of an .npz file whose arrays have the samples on their first axis; a single number is of all samples.

    One uint8 array [N, H, W, 3] is images; any other set is model inputs by name, a dict of arrays without
    the sample axis per sample. `y` or `labels` holds class indices, class names or numbers [N], or several
    per sample [N, labels], or an array per sample [N, height, width].
    UsageError for pickles, arrays of objects or texts, unequal lengths, bad labels, and no samples.
    """
    arrays = _load(path)
    labels = _take_labels(arrays, path.name)
    count = _count(arrays, labels, path.name)
    numbers = None if labels is None else _listed(labels)
    digest = sha256_json({".npz": sha256_file(path)})
    if _are_images(arrays):
        (images,) = arrays.values()
        return Contents("image", Lazy(images.__getitem__, range(count)), digest, numbers)
    return Contents("tensor", Lazy(partial(_sample, arrays), range(count)), digest, numbers)


def has_sequences(folder: Path) -> bool:
    return any(_archives(folder))


def read_sequences(folder: Path) -> Contents:
    """A sample an .npz file of the folder, in the order of their names, opened when asked for: arrays of any length,
    without a sample axis. `y` or `labels` holds what the file's sample is, or an entry for each of its steps.

    UsageError as `read_tensors`, and for files of which only some have labels.
    """
    files = _archives(folder)
    labels = [_label_of(path) for path in files]
    if None in [None if label is None else True for label in labels] and any(label is not None for label in labels):
        lacking = next(path for path, label in zip(files, labels, strict=True) if label is None)
        raise UsageError(f"{lacking.name} has no {LABELS[0]!r}; other files of {folder.name!r} have.", "Add it.")
    digest = sha256_json({path.name: sha256_file(path) for path in files})
    samples = Lazy(lambda index: _opened(files[index]), range(len(files)))
    return Contents("tensor", samples, digest, None if labels[0] is None else labels)


def _archives(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".npz" and path.name[0] != ".")


def _opened(path: Path) -> Arrays:
    arrays = _load(path)
    for name in LABELS:
        arrays.pop(name, None)
    if not arrays:
        raise UsageError(f"{path.name} has no arrays.", _WRITE)
    return arrays


def _label_of(path: Path) -> Any:
    arrays = {name: array if array.ndim else array[None] for name, array in _load(path).items() if name in LABELS}
    labels = _take_labels(arrays, path.name)
    if labels is None:
        return None
    plain = _plain(labels)
    return plain[0] if len(plain) == 1 else plain


def _load(path: Path) -> Arrays:
    require_file(path, Limit.ARRAYS)
    if not zipfile.is_zipfile(path):
        message = f"{path.name} is not an .npz archive: damaged, or a pickle, which is refused as unsafe."
        raise UsageError(message, _WRITE)
    with refused(f"{path.name} is a damaged archive", _WRITE), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_members(members, path.name)
        return {member.filename.removesuffix(".npy"): _array(archive, member, path.name) for member in members}


def _check_members(members: list[zipfile.ZipInfo], file: str) -> None:
    """UsageError for what numpy.savez does not write, and for more than fits."""
    names = [member.filename for member in members]
    if odd := [name for name in names if not name.endswith(".npy")]:
        raise UsageError(f"{file}: {odd[0]!r} is no array; allowed are .npy members.", _WRITE)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{file} has {twice[0]!r} twice.", _WRITE)
    locked = [member.filename for member in members if member.flag_bits & _ENCRYPTED]
    if locked:
        raise UsageError(f"{file}: {locked[0]!r} is encrypted.", _WRITE)
    packed = [member.filename for member in members if member.compress_type not in _METHODS]
    if packed:
        raise UsageError(f"{file}: {packed[0]!r} is compressed by a method that numpy does not write.", _WRITE)
    total = sum(member.file_size for member in members)
    if total > Limit.ARRAYS:
        raise UsageError(f"{file} unpacks to {total:,} bytes; at most {Limit.ARRAYS:,} are read.", "Split it.")


_ENCRYPTED = 1  # bit 0 of the general purpose flags (PKWARE's APPNOTE, 4.4.4)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_WRITE = "Write it with numpy.savez."


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: str) -> NDArray[Any]:
    """One array of numbers. Its header is read first: it may promise more than there is."""
    name = member.filename.removesuffix(".npy")
    with refused(f"{file}: the array {name!r} cannot be read", "Write it again."):
        with archive.open(member) as stream:
            shape, dtype = _header(stream)
            begin = stream.tell()
        if dtype.hasobject:
            raise UsageError(
                f"{file}: the array {name!r} holds Python objects (a pickle), which is refused as unsafe.",
                "Save arrays of numbers only.",
            )
        if dtype.kind not in ("biufU" if name in LABELS else "biuf"):
            raise UsageError(f"{file}: {name!r} is {dtype}; allowed are booleans, integers and floats.")
        if begin + math.prod(shape) * dtype.itemsize != member.file_size:
            raise UsageError(
                f"{file}: the array {name!r} cannot be read: it has another size than its header says.",
                "Write it again.",
            )
        with archive.open(member) as stream:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            return array


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an .npy file, which is left behind its header."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"its format {version} is not known")
    shape, _, dtype = readers[version](stream)
    return shape, dtype


def _take_labels(arrays: Arrays, file: str) -> NDArray[Any] | None:
    """Remove the labels from `arrays`."""
    found = [name for name in LABELS if name in arrays]
    if len(found) > 1:
        raise UsageError(f"{file} has both 'y' and 'labels'.", "Keep one of them.")
    if not found:
        return None
    labels = arrays.pop(found[0])
    finite = labels.dtype.kind in "Ubiu" or bool(np.isfinite(labels).all())
    if not labels.ndim or not finite:
        raise UsageError(
            f"{file}: {found[0]!r} is {labels.dtype} {labels.shape}; labels are class indices, names, texts or finite "
            "numbers of shape (N,), (N, labels) or (N, height, width).",
            "Give one per sample, or one for each label of it.",
        )
    if labels.dtype.kind in "iuf" and labels.size and not -_LARGEST <= labels.min() <= labels.max() <= _LARGEST:
        raise UsageError(f"{file}: {found[0]!r} has labels from {labels.min()} to {labels.max()}, which is too large.")
    return labels


def _listed(labels: NDArray[Any]) -> list[Any]:
    """Of each sample a number, a short list, or an array."""
    large = labels.ndim > 2 or (labels.ndim == 2 and labels.shape[1] > _LISTED)
    return list(labels) if large else _plain(labels)


_LISTED = 1000


def _plain(labels: NDArray[Any]) -> list[Any]:
    """Whole numbers as integers, whatever the dtype."""
    whole = labels.dtype.kind in "biu" or (labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all()))
    listed: list[Any] = (labels.astype(np.int64) if whole else labels).tolist()
    return listed


_LARGEST = 2**53
"""Whole numbers up to here are the same as float64."""


def _count(arrays: Arrays, labels: NDArray[Any] | None, file: str) -> int:
    every = {**arrays, **({} if labels is None else {"labels": labels})}
    shapes = {name: array.shape[:1] for name, array in every.items() if array.ndim or name in LABELS}
    if not any(array.ndim for array in arrays.values()) or () in shapes.values() or (0,) in shapes.values():
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
    return {name: array[index] if array.ndim else array for name, array in arrays.items()}
