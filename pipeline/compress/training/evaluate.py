"""Judging the student on held-out samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.compress.shared.forward import Batch
from pipeline.compress.training.data import TrainingSet
from pipeline.compress.training.observed_model import ModelWithHooks
from pipeline.tasks.registry import OUTPUTS, compute_fidelity

Array = NDArray[np.float32]
_BATCH = 64


class Validation:
    """The held-out samples, the teacher's outputs on them, and the student's score: accuracy where classes are
    labelled, else fidelity to the teacher."""

    def __init__(self, data: TrainingSet, indices: Sequence[int], family: str, device: torch.device) -> None:
        self._data, self._family, self._device = data, family, device
        self._order = sorted(indices, key=data.size)  # samples of alike length together: less padding
        self._reference: Array | None = None

    def set_reference(self, teacher: nn.Module) -> None:
        """Take the teacher's outputs as what the student is compared with."""
        self._reference = self._outputs(teacher)

    def scores(self, student: ModelWithHooks) -> dict[str, float]:
        """`score` (higher is better), and all scores by name."""
        assert self._reference is not None  # noqa: S101  # `set_reference` comes first
        outputs = self._outputs(student)
        found = compute_fidelity(self._family, self._reference, outputs)
        scores = dict(found.scores)
        primary = 1.0 - found.drop / 100.0
        kind = OUTPUTS.get(self._family)
        if kind.best_by and self._data.labels is not None:
            labels = [self._data.labels[index] for index in self._order]
            primary = scores[kind.best_by] = kind.against(labels, outputs)[kind.best_by] / 100.0
        return {"score": primary, **scores}

    def _outputs(self, model: nn.Module) -> Array:
        training = {name: module.training for name, module in model.named_modules()}
        model.eval()
        with torch.inference_mode():
            rows = [model(batch).outputs.cpu() for batch in self._batches()]
        for name, module in model.named_modules():
            module.training = training[name]
        return torch.cat(rows).numpy()

    def _batches(self) -> Iterator[Batch]:
        for start in range(0, len(self._order), _BATCH):
            batch = self._data.collate([self._data[index] for index in self._order[start : start + _BATCH]])
            yield {name: value.to(self._device) for name, value in batch.items()}


def frozen(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, without gradients."""
    return model.eval().requires_grad_(False)
