"""Images with a class for every pixel: `images/NAME.jpg` and `masks/NAME.png`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, refused, require_file
from pipeline.data.lazy import Contents, Lazy
from pipeline.data.readers.image_folder import EXTENSIONS, open_image

IMAGES, MASKS = "images", "masks"
_MODES = ("1", "L", "P", "I", "I;16")
_REMEDY = "A mask is a grey or palette .png whose values are class indices (255: not scored)."


def has_maps(folder: Path, maps: str = MASKS) -> bool:
    """Are images and maps of their pixels, in a sub-folder of this name, side by side?"""
    return (folder / IMAGES).is_dir() and (folder / maps).is_dir()


def read_masks(folder: Path) -> Contents:
    """Images with maps int32 [height, width] of their pixels' classes as labels (see `read_maps`)."""
    return read_maps(folder, MASKS, open_mask, _REMEDY)


def read_maps(
    folder: Path, maps: str, open_map: Callable[[Path], NDArray[Any]], remedy: str, others: Sequence[Path] = ()
) -> Contents:
    """Images in the order of their names, and as labels the map of each, `maps`/NAME.png, both opened when asked for.
    The digest covers `others` too.

    UsageError if there is no image, or one has no map.
    """
    files = sorted(path for path in (folder / IMAGES).iterdir() if path.suffix.lower() in EXTENSIONS)
    if not files:
        raise UsageError(f"There is no image in {folder.name}/{IMAGES}.", f"Allowed: {', '.join(EXTENSIONS)}.")
    beside = [folder / maps / f"{file.stem}.png" for file in files]
    for file, found in zip(files, beside, strict=True):
        if not found.is_file():
            raise UsageError(f"The image {file.name!r} has no map {maps}/{found.name}.", remedy)
        for path in (file, found):
            require_file(path, Limit.IMAGE)
    covered = [*files, *beside, *others]
    digest = sha256_json({f"{path.parent.name}/{path.name}": sha256_file(path) for path in covered})
    images = Lazy(lambda index: open_image(files[index]), range(len(files)))
    return Contents("image", images, digest, Lazy(lambda index: open_map(beside[index]), range(len(files))))


def open_mask(path: Path) -> NDArray[np.int32]:
    """Class indices [height, width]; UsageError if the file holds colours or cannot be decoded."""
    return open_grey(path, _MODES, "mask", _REMEDY).astype(np.int32)


def open_grey(path: Path, modes: Sequence[str], word: str, remedy: str) -> NDArray[Any]:
    """The values [height, width] of a .png of one of Pillow's `modes`; UsageError for another, and for what cannot be
    decoded. `word`: what messages call it."""
    require_file(path, Limit.IMAGE)
    with refused(f"The {word} {path.name!r} cannot be decoded", remedy), Image.open(path, formats=["PNG"]) as image:
        if image.mode not in modes:
            raise UsageError(f"The {word} {path.name!r} holds colours ({image.mode}).", remedy)
        if image.width * image.height > Limit.PIXELS:
            raise UsageError(f"The {word} {path.name!r} has {image.width} x {image.height} pixels.", remedy)
        return np.asarray(image)
