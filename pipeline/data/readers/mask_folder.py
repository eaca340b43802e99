"""Images with a class for every pixel: `images/NAME.jpg` and `masks/NAME.png`."""

from __future__ import annotations

from pathlib import Path

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


def has_masks(folder: Path) -> bool:
    return (folder / IMAGES).is_dir() and (folder / MASKS).is_dir()


def read_masks(folder: Path) -> Contents:
    """Images in the order of their names, and as labels maps int32 [height, width] of their pixels' classes, both
    opened when asked for.

    UsageError if there is no image, or one has no mask.
    """
    files = sorted(path for path in (folder / IMAGES).iterdir() if path.suffix.lower() in EXTENSIONS)
    if not files:
        raise UsageError(f"There is no image in {folder.name}/{IMAGES}.", f"Allowed: {', '.join(EXTENSIONS)}.")
    masks = [folder / MASKS / f"{file.stem}.png" for file in files]
    for file, mask in zip(files, masks, strict=True):
        if not mask.is_file():
            raise UsageError(f"The image {file.name!r} has no mask {MASKS}/{mask.name}.", _REMEDY)
        for path in (file, mask):
            require_file(path, Limit.IMAGE)
    digest = sha256_json({f"{path.parent.name}/{path.name}": sha256_file(path) for path in [*files, *masks]})
    images = Lazy(lambda index: open_image(files[index]), range(len(files)))
    return Contents("image", images, digest, Lazy(lambda index: open_mask(masks[index]), range(len(files))))


def open_mask(path: Path) -> NDArray[np.int32]:
    """Class indices [height, width]; UsageError if the file holds colours or cannot be decoded."""
    require_file(path, Limit.IMAGE)
    with refused(f"The mask {path.name!r} cannot be decoded", _REMEDY), Image.open(path, formats=["PNG"]) as image:
        if image.mode not in _MODES:
            raise UsageError(f"The mask {path.name!r} holds colours ({image.mode}).", _REMEDY)
        if image.width * image.height > Limit.PIXELS:
            raise UsageError(f"The mask {path.name!r} has {image.width} x {image.height} pixels.", _REMEDY)
        return np.asarray(image).astype(np.int32)
