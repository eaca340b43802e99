"""Images with a depth for every pixel: `images/NAME.jpg`, `depths/NAME.png` of 16 bits, and what a step of those is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, read_text
from pipeline.data.lazy import Contents
from pipeline.data.readers.mask_folder import open_grey, read_maps
from pipeline.data.readers.tables import is_number

DEPTHS, SCALE = "depths", "scale.txt"
_MODES = ("I;16", "I", "L")
_REMEDY = (
    f"A depth map is a grey .png of 8 or 16 bits (0: not scored); {DEPTHS}/{SCALE} holds what a step of its values is "
    "in the model's units: 0.001 for millimetres and metres, 0.00390625 for KITTI."
)


def read_depths(folder: Path) -> Contents:
    """Images with maps float32 [height, width] of their pixels' depths as labels (see `read_maps`). UsageError if
    nothing says what a step of the values is."""
    file = folder / DEPTHS / SCALE
    if not file.is_file():
        raise UsageError(f"The folder {folder.name!r} has {DEPTHS}/ and no {DEPTHS}/{SCALE}.", _REMEDY)
    text = read_text(file, Limit.LINE).strip()
    if not is_number(text) or float(text) <= 0:
        raise UsageError(f"{DEPTHS}/{SCALE} holds {text[:80]!r}, not a number above 0.", _REMEDY)
    scale = np.float32(text)

    def open_depth(path: Path) -> NDArray[np.float32]:
        return open_grey(path, _MODES, "depth map", _REMEDY).astype(np.float32) * scale

    return read_maps(folder, DEPTHS, open_depth, _REMEDY, [file])
