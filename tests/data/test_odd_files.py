"""Files that nobody sane writes: each is refused by one message that names the file and what is wrong with it."""

from __future__ import annotations

import io
import json
import os
import struct
import wave
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.core.errors import UsageError
from pipeline.data.image_preprocessing import ImagePreprocessing
from pipeline.data.readers.audio_folder import open_recording, read_audio
from pipeline.data.readers.detection_files import read_coco, read_yolo
from pipeline.data.readers.image_folder import open_image, read_images
from pipeline.data.readers.tensor_files import read_tensors
from pipeline.data.readers.text_files import read_texts

QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def message(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    return caught.value.message


def image(path: Path, mode: str = "RGB", size: tuple[int, int] = (6, 4), **options: object) -> Path:
    Image.new(mode, size).save(path, **options)
    return path


def test_images(tmp_path: Path) -> None:
    assert open_image(image(tmp_path / "ok.png")).shape == (4, 6, 3)
    assert open_image(image(tmp_path / "palette.png", "P")).shape == (4, 6, 3)
    assert open_image(image(tmp_path / "cmyk.jpg", "CMYK")).shape == (4, 6, 3)


_UNDECODED = "The image 'x.png' cannot be decoded: "
_NO_PIXELS = _UNDECODED + "cannot identify image file"
_FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (6, 4), "red")]}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: image(p, "I;16"), "The image 'x.png' has more than 8 bits a channel."),
        (lambda p: image(p, **_FRAMES), "The image 'x.png' is animated."),
        (lambda p: p.write_bytes(b"<svg/>"), _NO_PIXELS),
        (lambda p: Image.new("RGB", (6, 4)).save(p, "GIF"), _NO_PIXELS),
        (lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), _NO_PIXELS),
        (lambda p: p.write_bytes(image(p).read_bytes()[:45]), _UNDECODED + ""),
        (lambda p: p.write_bytes(bomb(60_000, 60_000)), _UNDECODED + "Image size (3600000000 pixels) exc"),
        (lambda p: p.write_bytes(bomb(10_000, 10_000)), "The image 'x.png' has 10000 x 10000 pixels; at most 89,478"),
        (os.mkfifo, "'x.png' is a pipe, not a file."),
    ],
)  # fmt: skip
def test_odd_images(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    make(tmp_path / "x.png")
    assert message(open_image, tmp_path / "x.png").startswith(said)
    if "decoded" not in said and "pixels" not in said:
        return
    assert read_images(tmp_path).kind == "image"


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that says it has so many pixels."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def test_a_folder_with_a_device_among_its_images(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    assert message(read_images, tmp_path) == "'b.png' is a device, not a file."


@QUICK
@given(st.binary(max_size=300))
def test_any_image(tmp_path: Path, content: bytes) -> None:
    start = image(tmp_path / "x.png").read_bytes()[:40]
    (tmp_path / "x.png").write_bytes(start + content)
    assert message(open_image, tmp_path / "x.png").startswith(_UNDECODED + "")


def test_a_long_row_is_not_blown_up() -> None:
    prepare = ImagePreprocessing(resize=224)
    assert message(prepare, np.zeros((1, 4000, 3), np.uint8)) == (
        "An image of 1 x 4000 pixels would become one of 224 x 896000, which is too large."
    )


@pytest.mark.parametrize("field", [{"resize": 10**9}, {"resize": [0, 8]}, {"std": [0, 1, 1]}, {"rescale": -1}])
def test_odd_image_processing(field: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        ImagePreprocessing.model_validate(field)


def recording(path: Path, frames: int = 100, width: int = 2, channels: int = 1) -> bytes:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(16000)
        file.writeframes(b"\1" * (frames * width * channels))
    return path.read_bytes()


def patched(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


@pytest.mark.parametrize(
    ("place", "new", "said"),
    [
        (20, b"\3\0", "x.wav is not a PCM .wav file: unknown format: 3"),
        (22, b"\0\0", "x.wav is not a PCM .wav file: bad # of channels"),
        (24, b"\0\0\0\0", "x.wav has 0 samples a second."),
        (34, b"\x18\0", "x.wav has 24-bit samples or none."),
        (40, b"\xff\xff\xff\xff", "x.wav is cut short: its header promises 2147483647 samples."),
        (0, b"RIFX", "x.wav is not a PCM .wav file: file does not start with RIFF id"),
    ],
)
def test_odd_recordings(tmp_path: Path, place: int, new: bytes, said: str) -> None:
    (tmp_path / "x.wav").write_bytes(patched(recording(tmp_path / "x.wav"), place, new))
    assert message(open_recording, tmp_path / "x.wav") == said


@QUICK
@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_recording(tmp_path: Path, content: bytes, place: int) -> None:
    (tmp_path / "x.wav").write_bytes(patched(recording(tmp_path / "x.wav"), place, content))
    try:
        open_recording(tmp_path / "x.wav")
    except UsageError as error:
        assert error.message.startswith("x.wav ")


def test_a_pipe_among_recordings(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.wav")
    assert message(read_audio, tmp_path) == "'x.wav' is a pipe, not a file."


def archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def npy(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array))
    return file.getvalue()


def claims(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


_UNREAD = "d.npz: the array 'x' cannot be read: "
_LENGTH = _UNREAD + "it has another size than its header says."
X = npy(np.zeros((3, 2), np.float32))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"x.npy": claims("(1000000000000, 8)")}, _LENGTH),
        ({"x.npy": claims("(-1, 8)")}, _LENGTH),
        ({"x.npy": claims("('a',)")}, _UNREAD + "shape is not valid: ('a',)"),
        ({"x.npy": claims("(3,)", "'<q9'")}, _UNREAD + "descr is not a valid dtype descriptor: '<q9'"),
        ({"x.npy": X[:-1]}, _LENGTH),
        ({"x.npy": b"\x93NUMPY\x09\x00" + b"\0" * 50}, _UNREAD + ""),
        ({"x.npy": npy(np.zeros(3, [("a", "f4"), ("b", "i8")]))}, "d.npz: 'x' is [('a', '<f4'), ('b', '<i8')]"),
        ({"x.npy": npy(np.zeros(3, np.complex64))}, "d.npz: 'x' is complex64; allowed are booleans"),
        ({"x.npy": npy(np.array([{}], dtype=object))}, "d.npz: the array 'x' holds Python"),
        ({"x.npy": X, "y.npy": npy(np.array([0, 1, 2**63], np.uint64))}, "d.npz: 'y' has labels from 0 to 9223372036"),
    ],
)  # fmt: skip
def test_odd_arrays(tmp_path: Path, members: dict[str, bytes], said: str) -> None:
    assert message(read_tensors, archive(tmp_path / "d.npz", members)).startswith(said)


def test_odd_archives(tmp_path: Path) -> None:
    path = archive(tmp_path / "d.npz", {"x.npy": X}, zipfile.ZIP_LZMA)
    assert message(read_tensors, path) == "d.npz: 'x.npy' is compressed by a method that numpy does not write."
    data = bytearray(archive(path, {"x.npy": X}).read_bytes())
    for place in (6, data.rfind(b"PK\1\2") + 8):
        data[place] |= 1
    path.write_bytes(bytes(data))
    assert message(read_tensors, path) == "d.npz: 'x.npy' is encrypted."


def test_an_archive_that_unpacks_to_more_than_fits(tmp_path: Path) -> None:
    data = bytearray(archive(tmp_path / "d.npz", {"x.npy": X, "z.npy": X}).read_bytes())
    central = data.find(b"PK\1\2")
    data[central + 24 : central + 28] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "d.npz").write_bytes(bytes(data))
    assert message(read_tensors, tmp_path / "d.npz").startswith("d.npz unpacks to 4,294,967,")


@QUICK
@given(st.binary(max_size=80), st.integers(0, 250))
def test_any_archive(tmp_path: Path, content: bytes, place: int) -> None:
    data = archive(tmp_path / "d.npz", {"x.npy": X}).read_bytes()
    (tmp_path / "d.npz").write_bytes(patched(data, place, content))
    try:
        read_tensors(tmp_path / "d.npz")
    except UsageError as error:
        assert error.message.startswith("d.npz")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.txt", b"a\0b", "t.txt has a NUL character in line 1."),
        ("t.txt", b"x" * 1_000_001, "t.txt has a line of 1,000,001 characters; at most 1,000,000 are read."),
        ("t.jsonl", b"[" * 5000, "t.jsonl, line 1 is nested more than 64 levels deep."),
        (
            "t.jsonl",
            b'{"text": "\\ud800"}',
            "t.jsonl, line 1 has a text with half a surrogate pair, which is no character.",
        ),
        (
            "t.jsonl",
            b'{"text": "a", "label": 99999999999999999999}',
            't.jsonl, line 1: "label" is 99999999999999999999, which is too',
        ),
        (
            "t.jsonl",
            b'{"tokens": ["a"], "labels": [10000000000000000000]}',
            't.jsonl, line 1: "labels" must be a list of class',
        ),
        (
            "t.jsonl",
            b'{"text": "a", "n": ' + b"9" * 5000 + b"}",
            "t.jsonl, line 1 is not valid JSON: Exceeds the limit",
        ),
    ],
)
def test_odd_texts(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert message(read_texts, tmp_path / name).startswith(said)


@QUICK
@given(st.binary(max_size=100), st.sampled_from(["t.txt", "t.jsonl", "t.csv", "t.tsv"]))
def test_any_text(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    try:
        read_texts(tmp_path / name)
    except UsageError as error:
        assert error.message.startswith(name)


def coco(folder: Path, **changes: object) -> Path:
    image(folder / "a.png")
    one = {"id": 1, "file_name": "a.png", "width": 6, "height": 4}
    box = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 3, 2]}
    one |= {key: value for key, value in changes.items() if key in one}
    box |= {key: value for key, value in changes.items() if key in box}
    (folder / "c.json").write_text(json.dumps({"images": [one], "annotations": [box]}))
    return folder / "c.json"


def test_coco(tmp_path: Path) -> None:
    assert read_coco(coco(tmp_path)).labels == [[[3.0, 0.25, 0.25, 0.5, 0.5]]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"file_name": "../a.png"}, "c.json names the image '../a.png', which is outside its folder."),
        ({"file_name": "/etc/passwd"}, "c.json names the image '/etc/passwd', which is outside its folder."),
        ({"file_name": 7}, "c.json names the image 7, which is outside its folder."),
        ({"bbox": [float("nan"), 0, 1, 1]}, "c.json has the box [nan, 0, 1, 1] of class 3 in 'a.png'."),
        ({"bbox": [0, 0, -1, 1]}, "c.json has the box [0, 0, -1, 1] of class 3 in 'a.png'."),
        ({"bbox": "abcd"}, "c.json is not a COCO annotation file: could not convert string to float: 'a'"),
        ({"width": 0}, "c.json is not a COCO annotation file: float division by zero"),
        ({"category_id": 10**400}, "c.json is not a COCO annotation file: int too large to convert to float"),
    ],
)
def test_odd_coco(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    assert message(read_coco, coco(tmp_path, **changes)) == said


@pytest.mark.parametrize(
    "line", ["0 nan 0 0 0", "0 0 0 1e999 0", "0 0 0 -1 0", "9" * 400 + " 0 0 0 0", "9" * 5000 + " 0 0 0 0", "0 0 0 0"]
)
def test_odd_yolo(tmp_path: Path, line: str) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    image(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text(line)
    assert message(read_yolo, tmp_path) == (
        f"a.txt, line 1 is {line[:80]!r}; allowed is `class cx cy w h`, relative to the image."
    )


def test_a_pipe_of_labels(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    image(tmp_path / "images" / "a.png")
    os.mkfifo(tmp_path / "labels" / "a.txt")
    assert message(read_yolo, tmp_path) == "'a.txt' is a pipe, not a file."
