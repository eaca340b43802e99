"""From a recording to a model's input, with the model's own feature extractor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import read_json_object, refused
from pipeline.data.datasets import Dataset
from pipeline.data.samples import Row


def audio_rows(dataset: Dataset, path: Path) -> Iterator[Row]:
    """float32 arrays with a batch axis of 1, named as the extractor names them; recordings of another rate than it
    wants are resampled. UsageError if the folder has none that loads here."""
    extractor = load_extractor(path)
    for recording, own in dataset.samples:
        rate = extractor.sampling_rate
        values = resampled(recording, own, rate)
        with refused(f"The feature extractor of {path.name!r} cannot take a recording of {dataset.name!r}", _REMEDY):
            made = extractor(values, sampling_rate=rate, return_tensors="np")
            name = extractor.model_input_names[0]
            row = {name: made[name].astype("float32")}
        yield row


def resampled(values: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """float32 [n] at `rate` samples a second as [ceil(n * wanted / rate)], through a polyphase low-pass filter."""
    if rate == wanted:
        return values
    from scipy.signal import resample_poly  # noqa: PLC0415  # slow to import, and only other rates need it

    common = math.gcd(rate, wanted)
    return np.asarray(resample_poly(values, wanted // common, rate // common), np.float32)


def resampling(dataset: Dataset, folder: Path) -> str:
    """Says that recordings (of 32, spread over the set) have another rate than the model; empty if they do not, or the
    folder does not tell."""
    file = folder / "preprocessor_config.json"
    wanted = read_json_object(file).get("sampling_rate") if file.is_file() else None
    count = len(dataset.samples)
    chosen = sorted({place * count // _LISTENED for place in range(_LISTENED)}) if count else []
    rates = sorted({dataset.samples[place][1] for place in chosen} - {wanted})
    if not isinstance(wanted, int) or not rates:
        return ""
    listed = ", ".join(map(str, rates))
    return f"Recordings of {dataset.name!r} have {listed} samples a second; they are resampled to the model's {wanted}."


def load_extractor(path: Path) -> Any:
    from transformers import AutoFeatureExtractor  # noqa: PLC0415  # seconds to import, and only audio needs it

    with refused(f"The folder {path.name!r} has no audio feature extractor that loads here", _REMEDY):
        extractor = AutoFeatureExtractor.from_pretrained(path, trust_remote_code=False)
        if not isinstance(extractor.sampling_rate, int) or not extractor.model_input_names:
            raise UsageError(f"The feature extractor of {path.name!r} takes no recordings.", _REMEDY)
        return extractor


_LISTENED = 32
_REMEDY = "Add its preprocessor_config.json, or give model inputs as .npz."
