"""Real inputs: photographs, rendered lines and pages, speech, files of this machine. Each function returns arrays with
the samples on their first axis, made the same way every time."""

from __future__ import annotations

import sysconfig
import wave
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks import data

Array = NDArray[Any]
Arrays = dict[str, Array]
RATE = 16_000


def photographs(count: int, size: tuple[int, int]) -> Array:
    """uint8 [count, height, width, 3] of COCO, letterboxed with grey."""
    files = sorted((data.folder() / "coco128_val2017/images").glob("*.jpg"))[:count]
    return np.stack([_letterbox(Image.open(file).convert("RGB"), size) for file in files])


def _letterbox(image: Image.Image, size: tuple[int, int]) -> Array:
    scale = min(size[0] / image.height, size[1] / image.width)
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    canvas = Image.new("RGB", (size[1], size[0]), (114, 114, 114))
    canvas.paste(small, (0, 0))
    return np.asarray(canvas)


@cache
def sentences() -> list[str]:
    return [text for _, *pair in data.sts_dev() for text in pair]


def text_lines(count: int, size: tuple[int, int], seed: int) -> tuple[Array, list[str]]:
    """Lines of print, uint8 [count, height, width, 3], each from its left edge on, and what they say."""
    draw, found = Random(seed), []  # noqa: S311  # reproducible, no secret
    words = [word for text in sentences() for word in text.split() if word.isascii()]
    for _ in range(count):
        text = " ".join(draw.sample(words, 3))[: size[1] // 16]
        found.append((_line(text.strip(), size, draw), text.strip()))
    return np.stack([image for image, _ in found]), [text for _, text in found]


def _line(text: str, size: tuple[int, int], draw: Random) -> Array:
    height = int(size[0] * draw.uniform(0.55, 0.75))
    paper, ink = draw.randint(170, 255), draw.randint(0, 80)
    font = ImageFont.load_default(height)
    width = max(1, int(font.getlength(text)) + 6)
    line = Image.new("RGB", (width, size[0]), (paper,) * 3)
    ImageDraw.Draw(line).text((3, (size[0] - height) // 3), text, fill=(ink,) * 3, font=font)
    wide = line.rotate(draw.uniform(-1.5, 1.5), fillcolor=(paper,) * 3)
    canvas = Image.new("RGB", (size[1], size[0]), (paper,) * 3)
    canvas.paste(wide.resize((min(width, size[1]), size[0])), (0, 0))
    return noisy(np.asarray(canvas), draw)


def noisy(image: Array, draw: Random) -> Array:
    noise = np.random.default_rng(draw.randrange(2**32)).normal(0, draw.uniform(0, 8), image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def pages(count: int, size: tuple[int, int], seed: int) -> Array:
    """Pages of paragraphs on photographs and paper, uint8 [count, height, width, 3]."""
    backgrounds = photographs(count, size)
    draw = Random(seed)  # noqa: S311  # as above
    return np.stack([_page(backgrounds[place], place % 3 > 0, draw) for place in range(count)])


def _page(background: Array, paper: bool, draw: Random) -> Array:
    height, width, _ = background.shape
    shade = draw.randint(190, 255)
    image = Image.new("RGB", (width, height), (shade,) * 3) if paper else Image.fromarray(background)
    pen, top = ImageDraw.Draw(image), draw.randint(5, 40)
    while top < height - 40:
        tall = draw.choice((12, 14, 18, 24, 32))
        left = draw.randint(4, width // 4)
        ink = tuple(draw.randint(0, 90) for _ in range(3)) if paper else (255, 255, draw.randint(0, 255))
        pen.text((left, top), draw.choice(sentences())[: width // tall], fill=ink, font=ImageFont.load_default(tall))
        top += tall + draw.randint(4, 40)
    return noisy(np.asarray(image), draw)


def scenes(count: int, side: int, seed: int) -> tuple[Array, Array]:
    """Photographs with reddish discs, greenish boxes and bluish wedges on them, uint8 [count, side, side, 3], and the
    classes of every fourth pixel, uint8 [count, side / 4, side / 4], 0 where there is none."""
    backgrounds, draw = photographs(128, (side, side)), Random(seed)  # noqa: S311  # as above
    made = [_scene(backgrounds[draw.randrange(len(backgrounds))], draw) for _ in range(count)]
    return np.stack([image for image, _ in made]), np.stack([mask for _, mask in made])


def _scene(background: Array, draw: Random) -> tuple[Array, Array]:
    image, side = Image.fromarray(background), len(background)
    mask = Image.new("L", image.size)
    for _ in range(draw.randint(1, 4)):
        kind, size = draw.randint(1, 3), draw.randint(side // 6, side // 2)
        left, top = draw.randint(0, side - size), draw.randint(0, side - size)
        corners = [(left, top), (left + size, top + size)]
        paint = tuple(draw.randint(*((130, 255) if place == kind else (0, 150))) for place in (1, 2, 3))
        for canvas, colour in ((image, paint), (mask, kind)):
            pen = ImageDraw.Draw(canvas)
            if kind == 3:
                pen.polygon([corners[0], (left, top + size), corners[1]], fill=colour)
            else:
                (pen.ellipse if kind == 1 else pen.rectangle)(corners, fill=colour)
    return noisy(np.asarray(image), draw), np.asarray(mask)[2::4, 2::4]


def channels_first(images: Array, mean: float | tuple[float, ...], std: float | tuple[float, ...]) -> Array:
    """float32 [n, channels, height, width] of uint8 images over 255, normalized."""
    scaled = (images.astype(np.float32) / 255 - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2).astype(np.float32))


@cache
def speech() -> Array:
    """float32 [samples] at 16 kHz."""
    with wave.open(str(data.folder() / "speech/vad_half.wav")) as file:
        frames = file.readframes(file.getnframes())
    return (np.frombuffer(frames, np.int16) / 32768).astype(np.float32)


def recordings(count: int, length: int, seed: int) -> Array:
    """Cuts of the speech at several loudnesses in noise of several levels, float32 [count, length]."""
    draw = np.random.default_rng(seed)
    found = speech()
    starts = draw.integers(0, len(found) - length, count)
    loud = 10 ** draw.uniform(-1, 0.3, (count, 1))
    noise = draw.standard_normal((count, length)) * 10 ** draw.uniform(-4, -2, (count, 1))
    return np.clip(np.stack([found[at : at + length] for at in starts]) * loud + noise, -1, 1).astype(np.float32)


def windows(recording: Array, step: int, context: int) -> Array:
    """[steps, context + step]: each step with the samples before it."""
    padded = np.concatenate([np.zeros(context, np.float32), recording])
    count = len(recording) // step
    return np.stack([padded[at * step : at * step + step + context] for at in range(count)])


def file_ends(count: int, seed: int) -> Array:
    """Files of this machine's Python and of the data sets, at most 40 of a suffix: int32 [count, 2048], their first
    1,024 bytes and their last without white space at the ends, 256 where there is none."""
    roots = [Path(sysconfig.get_paths()["stdlib"]), Path(sysconfig.get_paths()["purelib"]), data.folder()]
    by_suffix: dict[str, list[Path]] = {}
    for root in roots:
        for file in sorted(root.rglob("*")):
            if file.is_file() and len(by_suffix.setdefault(file.suffix, [])) < 40 and file.stat().st_size > 64:
                by_suffix[file.suffix].append(file)
    every = [file for suffix in sorted(by_suffix) for file in by_suffix[suffix]]
    Random(seed).shuffle(every)  # noqa: S311  # as above
    return np.array([_ends(file) for file in every[:count]], np.int32)


def _ends(file: Path) -> list[int]:
    with file.open("rb") as opened:
        head = list(opened.read(4096).lstrip()[:1024])
        opened.seek(max(0, file.stat().st_size - 4096))
        tail = list(opened.read(4096).rstrip()[-1024:])
    return [*head, *[256] * (1024 - len(head)), *[256] * (1024 - len(tail)), *tail]


def halves(make: Callable[[int, int], Arrays], calibration: int, evaluation: int) -> tuple[Arrays, Arrays]:
    """Calibration and evaluation samples, from different seeds."""
    return make(calibration, 0), make(evaluation, 1)
