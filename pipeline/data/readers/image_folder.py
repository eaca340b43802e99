"""A folder of images, flat or with one sub-folder per class."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, refused, require_file
from pipeline.data.lazy import Contents, Lazy

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def read_images(folder: Path) -> Contents:
    """The images of `folder` in the order of their names, opened when asked for.

    Sub-folders are classes: a label is the position of its sub-folder in sorted order. Other files and hidden
    ones are ignored. UsageError if there is no image, a class has none, or images lie here and in classes.
    """
    files = _images(folder)
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {path: _images(path) for path in classes}
    if files and any(found.values()):
        raise UsageError(f"The folder {folder.name!r} has images both in itself and in sub-folders.", "Keep one way.")
    labels = None
    if not files:
        files = [file for members in found.values() for file in members]
        labels = [label for label, members in enumerate(found.values()) for _ in members]
    _check(folder, files, {} if labels is None else found)
    digest = sha256_json({file.relative_to(folder).as_posix(): sha256_file(file) for file in files})
    names = () if labels is None else tuple(path.name for path in found)
    images = Lazy(lambda index: open_image(files[index]), range(len(files)))
    return Contents("image", images, digest, labels, classes=names)


def _images(folder: Path) -> list[Path]:
    allowed = (path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    return sorted(path for path in allowed if not path.name.startswith("."))


def _check(folder: Path, files: list[Path], classes: dict[Path, list[Path]]) -> None:
    if not files:
        raise UsageError(f"There is no image in the folder {folder.name!r}.", f"Allowed: {', '.join(EXTENSIONS)}.")
    for file in files:
        require_file(file, Limit.IMAGE)
    empty = [path.name for path, members in classes.items() if not members]
    if empty:
        raise UsageError(
            f"The class folder {empty[0]!r} in {folder.name!r} has no image, which would shift the labels.",
            "Add an image to it, or remove it.",
        )


def open_image(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3], turned upright as EXIF says; UsageError if the file cannot be decoded."""
    require_file(path, Limit.IMAGE)
    with refused(f"The image {path.name!r} cannot be decoded", _REMEDY), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below says it
        with Image.open(path, formats=_FORMATS) as image:
            _check_image(image, path.name)
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


_REMEDY = "Replace it or take it out of the folder."
_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
_WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def _check_image(image: Image.Image, name: str) -> None:
    """UsageError for what would be decoded into something else than what it shows."""
    width, height = image.size
    if width * height > Limit.PIXELS:
        raise UsageError(
            f"The image {name!r} has {width} x {height} pixels; at most {Limit.PIXELS:,} are read.", _REMEDY
        )
    if image.mode in _WIDE_MODES:
        raise UsageError(f"The image {name!r} has more than 8 bits a channel.", "Convert it to 8 bits.")
    if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
        raise UsageError(f"The image {name!r} is animated.", "Give a still image.")
