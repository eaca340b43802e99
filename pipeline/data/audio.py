"""From a recording to a model's input, with the model's own feature extractor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import refused
from pipeline.data.datasets import Dataset
from pipeline.data.samples import Row


def audio_rows(dataset: Dataset, path: Path) -> Iterator[Row]:
    """float32 arrays with a batch axis of 1, named as the extractor names them. UsageError if the folder has none that
    loads here, or a recording has another rate than it wants."""
    extractor = load_extractor(path)
    for values, rate in dataset.samples:
        if rate != extractor.sampling_rate:
            raise UsageError(
                f"A recording of {dataset.name!r} has {rate} samples a second; the model takes "
                f"{extractor.sampling_rate}.",
                "Resample the recordings.",
            )
        with refused(f"The feature extractor of {path.name!r} cannot take a recording of {dataset.name!r}", _REMEDY):
            made = extractor(values, sampling_rate=rate, return_tensors="np")
            name = extractor.model_input_names[0]
            row = {name: made[name].astype("float32")}
        yield row


def load_extractor(path: Path) -> Any:
    from transformers import AutoFeatureExtractor  # noqa: PLC0415  # seconds to import, and only audio needs it

    with refused(f"The folder {path.name!r} has no audio feature extractor that loads here", _REMEDY):
        extractor = AutoFeatureExtractor.from_pretrained(path, trust_remote_code=False)
        if not isinstance(extractor.sampling_rate, int) or not extractor.model_input_names:
            raise UsageError(f"The feature extractor of {path.name!r} takes no recordings.", _REMEDY)
        return extractor


_REMEDY = "Add its preprocessor_config.json, or give model inputs as .npz."
