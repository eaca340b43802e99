"""Inputs of sources that declare them (PyTorch factories, ONNX files): given samples fitted to them, or made up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.recipe import InputSpec
from pipeline.core.errors import UsageError
from pipeline.core.types import Json
from pipeline.source.datasets import Dataset
from pipeline.source.samples import Row

Specs = dict[str, Json]
"""Input name -> InputSpec as plain data; empty for Hugging Face models, whose inputs their config fixes."""


_SIDE = 14


def tensor_rows(dataset: Dataset, specs: Specs) -> Iterator[Row]:
    """One row per sample of arrays, with a batch axis. A model with one input takes a file's only array, whatever its
    name."""
    for number, sample in enumerate(dataset.samples):
        if len(specs) == 1 and len(sample) == 1:
            sample = dict(zip(specs, sample.values(), strict=True))  # noqa: PLW2901  # the same array, renamed
        row = {name: array[None] for name, array in sample.items()}
        yield fitted(row, specs, f"{dataset.name}, sample {number}")


def fitted(row: Row, specs: Specs, where: str) -> Row:
    """The row in the declared dtypes; UsageError if an input is missing, or its dtype or a fixed axis differs."""
    missing = [name for name in specs if name not in row]
    if missing:
        raise UsageError(
            f"{where} has no {missing[0]!r}; it has {', '.join(row)}.", f"The model takes {', '.join(specs)}."
        )
    return {name: _fit(row[name], specs[name], f"{where}: {name!r}") for name in specs} if specs else row


def _fit(array: NDArray[Any], declared: Json, where: str) -> NDArray[Any]:
    spec = InputSpec.model_validate(declared)
    wanted = np.dtype(spec.dtype)
    if not np.can_cast(array.dtype, wanted, casting="same_kind"):
        raise UsageError(f"{where} is {array.dtype}; the model takes {spec.dtype}.", "Convert the data.")
    fits = array.ndim == len(spec.shape) and all(
        isinstance(size, str) or size == given for size, given in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        shown = ", ".join(str(size) for size in spec.shape)
        raise UsageError(
            f"{where} has the shape {array.shape}; the model takes [{shown}].",
            "Make the samples of one size, or declare the axis that differs as dynamic.",
        )
    return array.astype(wanted)


def random_rows(specs: Specs, count: int, dynamic: int, seed: int = 0, batch: int = 1) -> Iterator[Row]:
    """Standard normal floats, or integers below `values`; dynamic axes get the length `dynamic`, the first `batch`, and
    the sides of images (inputs of four axes) 14 times as many values: networks halve them five times and more."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield {
            name: _random(InputSpec.model_validate(declared), generator, batch, dynamic)
            for name, declared in specs.items()
        }


def _random(spec: InputSpec, generator: np.random.Generator, batch: int, dynamic: int) -> NDArray[Any]:
    first = batch if isinstance(spec.shape[0], str) else spec.shape[0]
    length = dynamic * _SIDE if len(spec.shape) == 4 else dynamic
    shape = (first, *(length if isinstance(size, str) else size for size in spec.shape[1:]))
    if spec.dtype.startswith("float"):
        return generator.standard_normal(shape).astype(spec.dtype)
    return generator.integers(0, 2 if spec.dtype == "bool" else spec.values, shape).astype(spec.dtype)
