"""A folder of images."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, refused, require_file
from pipeline.data.lazy import Contents
from pipeline.data.readers.file_folder import FileKind, read_files
from pipeline.data.readers.tables import USUAL, Columns

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def read_images(folder: Path, columns: Columns = USUAL) -> Contents:
    """The images of `folder` (see `read_files`)."""
    return read_files(folder, IMAGES, columns)


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


IMAGES = FileKind("image", "image", EXTENSIONS, Limit.IMAGE, open_image)
