"""The first images and recordings of a set as they are, kept beside its samples: an app can tell by them whether it
makes the same inputs."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.datasets import Dataset
from pipeline.data.readers.audio_folder import Recording

_FOLDER = "raw"
IMAGE, RECORDING = "image.png", "recording.wav"


def write_raw(folder: Path, raw: Dataset, samples: int, count: int) -> None:
    """Write the first `count` images (as PNG) or recordings (as PCM) of `raw`, if each became one of the set's
    `samples`; nothing of other data."""
    if raw.kind not in ("image", "audio") or len(raw.samples) != samples:
        return
    for number, sample in enumerate(raw.samples[:count]):
        place = folder / _FOLDER / str(number)
        place.mkdir(parents=True)
        if raw.kind == "image":
            Image.fromarray(sample).save(place / IMAGE)
        else:
            _write_recording(place / RECORDING, sample)


def raw_file(folder: Path, number: int) -> Path | None:
    """What `write_raw` left of a sample; None if nothing."""
    found = (folder / _FOLDER / str(number) / name for name in (IMAGE, RECORDING))
    return next((path for path in found if path.is_file()), None)


def _write_recording(path: Path, recording: Recording) -> None:
    """16 bits a sample if that holds every value, else 32."""
    values, rate = recording
    width = 2 if np.array_equal(values * 2**15, np.round(values * 2**15)) else 4
    scale = 2 ** (8 * width - 1)
    codes = np.clip(np.round(values.astype(np.float64) * scale), -scale, scale - 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(codes.astype(f"<i{width}").tobytes())
