"""Judging the student on held-out samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.compress.shared.forward import Batch, at_once, judged_rows, judged_samples
from pipeline.compress.training.data import CACHED, TrainingSet
from pipeline.compress.training.observed_model import ModelWithHooks, model_inputs
from pipeline.core.model_spec import ModelSpec
from pipeline.tasks.registry import OUTPUTS, of_width

_BATCH = 64


class Validation:
    """The held-out samples, the teacher's answers on them, and the student's score: accuracy where classes are
    labelled, else fidelity to the teacher. Answers are what the exported model will be judged by (`OutputKind.rows`:
    the boxes of a detector, the span of an answer), not the outputs that losses compare."""

    def __init__(self, data: TrainingSet, indices: Sequence[int], spec: ModelSpec, device: torch.device) -> None:
        self._data, self._device = data, device
        self._kind = OUTPUTS.get(spec.family).bound((), spec.head)
        judged = indices[: judged_samples(spec, [data.size(index) for index in indices])]
        self._order = sorted(judged, key=data.size)  # samples of alike length together: less padding
        self._size = 1 if self._kind.whole else at_once(spec, [data.size(index) for index in judged], _BATCH)
        self._reference: NDArray[Any] | None = None

    def set_reference(self, teacher: nn.Module) -> None:
        """Take the teacher's answers as what the student is compared with."""
        self._reference = self._rows(teacher)

    def scores(self, student: ModelWithHooks) -> dict[str, float]:
        """`score` (higher is better), and all scores by name."""
        assert self._reference is not None  # noqa: S101  # `set_reference` comes first
        rows, kind = self._rows(student), of_width(self._kind, self._reference.shape[-1])
        found = kind.fidelity(self._reference, rows)
        scores = dict(found.scores)
        primary = 1.0 - found.drop / 100.0
        if self._kind.best_by and self._data.labels is not None:
            labels = [self._data.labels[index] for index in self._order]
            primary = scores[self._kind.best_by] = self._kind.against(labels, rows)[self._kind.best_by] / 100.0
        return {"score": primary, **scores}

    def _rows(self, model: nn.Module) -> NDArray[Any]:
        training = {name: module.training for name, module in model.named_modules()}
        model.eval()
        rows = [row for batch in self._batches() for row in self._rows_of(model, batch)]
        for name, module in model.named_modules():
            module.training = training[name]
        return self._kind.join(rows)

    def _rows_of(self, model: nn.Module, batch: Batch) -> list[NDArray[Any]]:
        if isinstance(model, ModelWithHooks):
            return judged_rows(model.inner, model_inputs(batch), self._kind)
        return [*batch[CACHED].cpu().numpy()[:, None]]  # of kinds whose rows are their outputs alone

    def _batches(self) -> Iterator[Batch]:
        for start in range(0, len(self._order), self._size):
            batch = self._data.collate([self._data[index] for index in self._order[start : start + self._size]])
            yield {name: value.to(self._device) for name, value in batch.items()}


def frozen(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, without gradients."""
    return model.eval().requires_grad_(False)
