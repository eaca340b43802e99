"""Images with masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import UsageError
from pipeline.data.datasets import load_whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for number in range(2):
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(tmp_path / f"set/images/{number}.jpg")
        Image.fromarray(np.full((4, 6), 7 * number, np.uint8)).save(tmp_path / f"set/masks/{number}.png")
    return tmp_path / "set"


def test_a_mask_is_a_class_for_every_pixel(folder: Path) -> None:
    found = load_whole(str(folder))
    assert (found.kind, len(found.samples)) == ("image", 2)
    assert [np.unique(label).tolist() for label in found.labels or ()] == [[0], [7]]
    palette = Image.fromarray(np.full((4, 6), 3, np.uint8), mode="P")
    palette.putpalette(list(range(256)) * 3)
    palette.save(folder / "masks/0.png")
    changed = load_whole(str(folder))
    assert (changed.labels or [])[0][0, 0] == 3
    assert changed.digest != found.digest


def test_what_is_refused(folder: Path) -> None:
    (folder / "masks/1.png").unlink()
    with pytest.raises(UsageError, match=r"The image '1\.jpg' has no map masks/1\.png\."):
        load_whole(str(folder))
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(folder / "masks/1.png")
    with pytest.raises(UsageError, match=r"The mask '1\.png' holds colours \(RGB\)\."):
        (load_whole(str(folder)).labels or [])[1]


def test_special_files_are_refused_before_they_are_read(folder: Path) -> None:
    (folder / "masks/1.png").unlink()
    with (folder / "masks/1.png").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(UsageError, match=r"'1\.png' has 1,000,000,000,000 bytes; at most 256,000,000 are read\."):
        load_whole(str(folder))
