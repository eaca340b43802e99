"""Images with depth maps of 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import UsageError
from pipeline.data.datasets import load_whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images", "depths"):
        (tmp_path / "set" / name).mkdir(parents=True)
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "set/images/a.jpg")
    Image.fromarray(np.array([[0, 1000, 65535], [1, 2, 3]], np.uint16)).save(tmp_path / "set/depths/a.png")
    (tmp_path / "set/depths/scale.txt").write_text("0.001\n")
    return tmp_path / "set"


def test_millimetres(folder: Path) -> None:
    found = load_whole(str(folder))
    (label,) = found.labels or ()
    np.testing.assert_allclose(label, [[0, 1, 65.535], [0.001, 0.002, 0.003]], rtol=1e-6)
    assert label.dtype == np.float32
    (folder / "depths/scale.txt").write_text("0.01")
    assert load_whole(str(folder)).digest != found.digest


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (None, "The folder 'set' has depths/ and no depths/scale.txt."),
        ("mm", "depths/scale.txt holds 'mm', not a number above 0."),
        ("0", "depths/scale.txt holds '0', not a number above 0."),
    ],
)
def test_the_scale_must_be_said(folder: Path, scale: str | None, message: str) -> None:
    (folder / "depths/scale.txt").unlink()
    if scale is not None:
        (folder / "depths/scale.txt").write_text(scale)
    with pytest.raises(UsageError) as caught:
        load_whole(str(folder))
    assert caught.value.message == message


def test_colours_are_no_depths(folder: Path) -> None:
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(folder / "depths/a.png")
    with pytest.raises(UsageError, match=r"^The depth map 'a\.png' holds colours \(RGB\)\."):
        (load_whole(str(folder)).labels or [])[0]
