"""From a recording to a model's input, with the model's own feature extractor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec, given
from pipeline.core.types import StrictModel
from pipeline.core.untrusted import read_json_object, refused
from pipeline.data.datasets import Dataset
from pipeline.data.lazy import Lazy
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


class AudioPreprocessing(StrictModel):
    """How recordings become the input of a model that takes their samples as they are."""

    sampling_rate: Annotated[int, Field(gt=0, le=1_000_000)]


def waveforms(dataset: Dataset, specs: Mapping[str, InputSpec], rate: int | None) -> Dataset:
    """Recordings as arrays for the only input that takes their samples, [batch, samples] or [batch, 1, samples]; as
    they are, if there is none. They are resampled to `rate`, if it is known.

    For a streaming model whose input has a fixed number of samples, as frames of so many: [frames, 1, ...]; zeros fill
    the last one.
    """
    name = next((name for name, spec in given(specs).items() if _takes_samples(spec)), "")
    if not name or len([spec for spec in given(specs).values() if spec.next is None]) != 1:
        return dataset
    shape = [1, *specs[name].shape[1:]]
    streams = any(spec.next is not None for spec in specs.values())

    def make(index: int) -> dict[str, NDArray[np.float32]]:
        recording, own = dataset.samples[index]
        values = resampled(recording, own, rate or own)
        if streams and isinstance(shape[-1], int):
            values = np.pad(values, (0, -len(values) % shape[-1]))
            return {name: values.reshape(-1, *[int(size) for size in shape])}
        return {name: values.reshape([*[1] * (len(shape) - 2), len(values)])}

    notes = (*dataset.notes, *_rates(dataset, rate))
    return replace(dataset, kind="tensor", samples=Lazy(make, range(len(dataset.samples))), notes=notes)


def _takes_samples(spec: InputSpec) -> bool:
    middle = spec.shape[1:-1]
    return spec.next is None and spec.dtype.startswith("float") and len(spec.shape) in (2, 3) and middle in ((), (1,))


def _rates(dataset: Dataset, rate: int | None) -> list[str]:
    """What is to be said of recordings' rates; UsageError if they differ, and nothing says which one is right."""
    rates = heard_rates(dataset)
    if rate is not None:
        return [_resampled(dataset.name, rates - {rate}, rate)] if rates - {rate} else []
    listed = ", ".join(map(str, sorted(rates)))
    if len(rates) > 1:
        raise UsageError(
            f"Recordings of {dataset.name!r} have {listed} samples a second, and nothing says which the model takes.",
            "Give the recipe a table [preprocessing] with sampling_rate = ...",
        )
    return [
        f"Recordings of {dataset.name!r} go into the model as they are, {listed} samples a second: neither the file "
        "nor a recipe ([preprocessing] sampling_rate) says how many it takes."
    ]


def heard_rates(dataset: Dataset) -> set[int]:
    """Samples a second of 32 recordings, spread over the set."""
    count = len(dataset.samples)
    return (
        {dataset.samples[place][1] for place in {at * count // _LISTENED for at in range(_LISTENED)}}
        if count
        else set()
    )


def _resampled(name: str, rates: set[int], wanted: int) -> str:
    listed = ", ".join(map(str, sorted(rates)))
    return f"Recordings of {name!r} have {listed} samples a second; they are resampled to the model's {wanted}."


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
    file = folder / EXTRACTOR
    wanted = read_json_object(file).get("sampling_rate") if file.is_file() else None
    if not isinstance(wanted, int):
        return ""
    rates = heard_rates(dataset) - {wanted}
    return _resampled(dataset.name, rates, wanted) if rates else ""


def load_extractor(path: Path) -> Any:
    from transformers import AutoFeatureExtractor  # noqa: PLC0415  # seconds to import, and only audio needs it

    with refused(f"The folder {path.name!r} has no audio feature extractor that loads here", _REMEDY):
        extractor = AutoFeatureExtractor.from_pretrained(path, trust_remote_code=False)
        if not isinstance(extractor.sampling_rate, int) or not extractor.model_input_names:
            raise UsageError(f"The feature extractor of {path.name!r} takes no recordings.", _REMEDY)
        return extractor


EXTRACTOR = "preprocessor_config.json"
"""The file of a model's feature extractor."""
_LISTENED = 32
_REMEDY = "Add its preprocessor_config.json, or give model inputs as .npz."
