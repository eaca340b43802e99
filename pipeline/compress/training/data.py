"""Training samples: which are held out, the order of batches, and batches as tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.compress.shared.forward import Batch
from pipeline.core.errors import StageError
from pipeline.data.samples import DATASET, Row, Samples, open_samples

LABELS = "labels"
"""Beside the model's inputs: the class of each row, where the data have labels."""
CACHED = "cached_teacher"
"""Beside the model's inputs: the teacher's outputs on each row, where they are cached."""

_POOL = 50  # batches that are sorted by length together: padding becomes rare, and order stays random


class TrainingSet(Dataset[tuple[int, Row]]):
    """The samples of one folder by index, their class labels if all are labelled, and a teacher's outputs
    in the file `cached`, float32 [samples, ...]."""

    def __init__(self, folder: Path, cached: Path | None = None) -> None:
        self.samples: Samples = open_samples(folder)
        record = json.loads((folder / DATASET).read_text(encoding="utf-8"))
        self._first = next(iter(self.samples[0]))
        self.name: str = record["name"]
        self.labels: list[float] | None = record["labels"]
        self._cached = np.load(cached, mmap_mode="r") if cached else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, Row]:
        return index, self.samples[index]

    def size(self, index: int) -> int:
        """Values of one sample's first input: tokens of a text."""
        return int(np.prod(self.samples.shapes(index, [self._first])[0]))

    def collate(self, rows: Sequence[tuple[int, Row]]) -> Batch:
        """Zero-padded tensors by input name, the samples' labels int64 [batch] if they have any, and the teacher's
        cached outputs float32 [batch, ...]."""
        batch = {name: _pad([row[name] for _, row in rows]) for name in rows[0][1]}
        if self.labels is not None:
            batch[LABELS] = torch.tensor([int(self.labels[index]) for index, _ in rows])
        if self._cached is not None:
            batch[CACHED] = torch.from_numpy(self._cached[[index for index, _ in rows]])
        return batch


def _pad(arrays: list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.from_numpy(array[0].copy()) for array in arrays], batch_first=True)


def split_validation(count: int, share: float, least: int) -> tuple[list[int], list[int]]:
    """(training, held-out) indices of `count` samples: the held-out ones evenly spread, the same every time.
    StageError if they would be fewer than `least`, or none were left to train on."""
    held = round(count * share)
    if held < least or held >= count:
        raise StageError(
            f"distill: held_out = {share} of {count} training samples are {held} to judge by; "
            f"{'at least ' + str(least) + ' are needed' if held < least else 'none would be left to train on'}.",
            "Give more training data with --training-data, or another held_out.",
        )
    chosen = {index * count // held for index in range(held)}
    return [index for index in range(count) if index not in chosen], sorted(chosen)


def batch_order(data: TrainingSet, indices: Sequence[int], batch_size: int, steps: int, seed: int) -> list[list[int]]:
    """`steps` batches of `batch_size` indices, epoch after epoch; each epoch is shuffled, then samples of alike
    length are put together. An epoch's last samples that fill no batch are left to the next one's shuffle.

    StageError if there are fewer samples than one batch.
    """
    if len(indices) < batch_size:
        raise StageError(
            f"distill: {len(indices)} training samples do not fill a batch of {batch_size}.",
            "Lower batch_size, or give more training data with --training-data.",
        )
    generator = np.random.default_rng(seed)
    batches: list[list[int]] = []
    while len(batches) < steps:
        batches += _epoch(data, generator.permutation(indices), batch_size, generator)
    return batches[:steps]


def _epoch(
    data: TrainingSet, order: np.ndarray[tuple[int], np.dtype[np.int64]], size: int, generator: np.random.Generator
) -> list[list[int]]:
    batches = []
    for start in range(0, len(order), size * _POOL):
        pool = sorted((int(index) for index in order[start : start + size * _POOL]), key=data.size)
        batches += [pool[place : place + size] for place in range(0, len(pool) - size + 1, size)]
    return [batches[place] for place in generator.permutation(len(batches))]
