"""A folder of .wav or .flac recordings."""

from __future__ import annotations

import wave
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, refused, require_file
from pipeline.data.lazy import Contents
from pipeline.data.readers.file_folder import FileKind, read_files, sub_folders
from pipeline.data.readers.tables import USUAL, Columns

Recording = tuple[NDArray[np.float32], int]
"""Mono samples float32 [n] from -1 to 1, and how many there are in a second."""

_DTYPES = {1: "u1", 2: "<i2", 4: "<i4"}


def has_audio(folder: Path) -> bool:
    return any(RECORDINGS.files(place) for place in [folder, *sub_folders(folder)])


def read_audio(folder: Path, columns: Columns = USUAL) -> Contents:
    """The recordings of `folder` (see `read_files`)."""
    return read_files(folder, RECORDINGS, columns)


_REMEDY = "Convert it to 16-bit PCM."
_FASTEST = 1_000_000


def open_recording(path: Path) -> Recording:
    """PCM of 8, 16 or 32 bits, its channels averaged; UsageError for anything else."""
    size = require_file(path, Limit.AUDIO)
    if path.suffix.lower() == ".flac":
        return _open_flac(path)
    with refused(f"{path.name} is not a PCM .wav file", _REMEDY), wave.open(str(path), "rb") as file:
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        frames = file.getnframes()
        content = file.readframes(min(frames, size))
    if width not in _DTYPES or not content:
        raise UsageError(f"{path.name} has {8 * width}-bit samples or none.", _REMEDY)
    if len(content) != frames * channels * width:
        raise UsageError(f"{path.name} is cut short: its header promises {frames} samples.", "Write it again.")
    if not 0 < rate <= _FASTEST:
        raise UsageError(f"{path.name} has {rate} samples a second.", _REMEDY)
    values = np.frombuffer(content, _DTYPES[width]).reshape(-1, channels).astype(np.float64).mean(axis=1)
    scale = 2.0 ** (8 * width - 1)
    return ((values - scale * (width == 1)) / scale).astype(np.float32), rate  # 8-bit samples are unsigned


def _open_flac(path: Path) -> Recording:
    if find_spec("soundfile") is None:
        raise UsageError(
            f"{path.name} needs the Python package soundfile to be read, which is not installed.",
            "Run `pip install soundfile`, or convert the recordings to .wav.",
        )
    import soundfile  # noqa: PLC0415  # optional

    with refused(f"{path.name} is not a FLAC file", "Convert it to .wav."), soundfile.SoundFile(path) as file:
        if file.frames * file.channels * 4 > Limit.AUDIO or not 0 < file.samplerate <= _FASTEST or not file.frames:
            raise UsageError(f"{path.name} has {file.frames} samples at {file.samplerate} a second.", _REMEDY)
        return file.read(dtype="float32", always_2d=True).mean(axis=1), file.samplerate


RECORDINGS = FileKind("audio", "recording", (".wav", ".flac"), Limit.AUDIO, open_recording)
