"""From a recording to a model's input, with the model's own feature extractor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.core.errors import UsageError, first_line
from pipeline.source.datasets import Dataset
from pipeline.source.samples import Row


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
        made = extractor(values, sampling_rate=rate, return_tensors="np")
        name = extractor.model_input_names[0]
        yield {name: made[name].astype("float32")}


def load_extractor(path: Path) -> Any:
    from transformers import AutoFeatureExtractor  # noqa: PLC0415  # seconds to import, and only audio needs it

    try:
        return AutoFeatureExtractor.from_pretrained(path)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(
            f"The folder {path.name!r} has no audio feature extractor that loads here: {first_line(error)}",
            "Add its preprocessor_config.json, or give model inputs as .npz.",
        ) from error
