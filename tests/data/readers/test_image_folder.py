from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import UsageError
from pipeline.data.readers.image_folder import open_image, read_images


def paint(path: Path, value: int = 0, mode: str = "RGB", size: tuple[int, int] = (4, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(path)
    return path


def test_images_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, value in [("c.bmp", 30), ("a.png", 10), ("b.PNG", 20)]:
        paint(tmp_path / name, value)
    (tmp_path / "notes.md").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image")
    contents = read_images(tmp_path)
    assert [int(image[0, 0, 0]) for image in contents.samples] == [10, 20, 30]
    assert (contents.kind, contents.labels, contents.samples[0].shape) == ("image", None, (3, 4, 3))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "bmp"])
def test_every_format_decodes(tmp_path: Path, suffix: str) -> None:
    image = open_image(paint(tmp_path / f"a.{suffix}", 128, size=(16, 16)))
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - 128).max() <= 2


@pytest.mark.parametrize(("mode", "expected"), [("L", [7, 7, 7]), ("RGBA", [7, 7, 7])])
def test_other_modes_become_rgb(tmp_path: Path, mode: str, expected: list[int]) -> None:
    assert open_image(paint(tmp_path / "a.png", 7, mode))[0, 0].tolist() == expected


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").shape == (4, 2, 3)


def test_class_folders_give_labels_in_sorted_order(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/2.png", "cat/1.png", "ant/x.png"):
        paint(tmp_path / name)
    (tmp_path / ".cache").mkdir()
    contents = read_images(tmp_path)
    assert (contents.labels, len(contents.samples)) == ([0, 1, 1, 2], 4)


def test_the_digest_covers_names_and_bytes_and_not_the_path(tmp_path: Path) -> None:
    paint(tmp_path / "one" / "a" / "1.png", 1)
    paint(tmp_path / "one" / "b" / "2.png", 2)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    digest = read_images(tmp_path / "one").digest
    assert read_images(tmp_path / "two").digest == digest
    paint(tmp_path / "two" / "b" / "2.png", 3)
    assert read_images(tmp_path / "two").digest != digest
    (tmp_path / "one" / "b").rename(tmp_path / "one" / "c")
    assert read_images(tmp_path / "one").digest != digest


def test_images_are_opened_only_when_asked_for(tmp_path: Path) -> None:
    paint(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    samples = read_images(tmp_path).samples
    assert samples[0].shape == (3, 4, 3)
    with pytest.raises(UsageError, match=r"^The image 'b\.png' cannot be decoded: "):
        samples[1]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_images_are_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UsageError) as caught:
        open_image(path)
    assert caught.value.message.startswith(f"The image 'cut.{suffix}' cannot be decoded: ")
    assert caught.value.remedy == "Replace it or take it out of the folder."


def test_no_image(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        read_images(tmp_path / "empty")
    assert caught.value.message == "There is no image in the folder 'empty'."
    assert caught.value.remedy == "Allowed: .bmp, .jpeg, .jpg, .png, .webp."


def test_a_class_without_images(tmp_path: Path) -> None:
    paint(tmp_path / "set" / "cat" / "1.png")
    (tmp_path / "set" / "ant").mkdir()
    with pytest.raises(UsageError) as caught:
        read_images(tmp_path / "set")
    assert caught.value.message == "The class folder 'ant' in 'set' has no image, which would shift the labels."


def test_images_here_and_in_classes(tmp_path: Path) -> None:
    paint(tmp_path / "set" / "cat" / "1.png")
    paint(tmp_path / "set" / "2.png")
    with pytest.raises(UsageError) as caught:
        read_images(tmp_path / "set")
    assert caught.value.message == "The folder 'set' has images both in itself and in sub-folders."
