"""Inputs and return type of a distillation loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModelOutputs:
    """One model's run on one process's part of a batch.

    `outputs`: float [rows, dimensions], what the task is judged by (an embedding or class logits per sample, logits
    per unmasked token). `features`: a tensor [batch, ...] per matched pair of blocks, the student's already
    projected to the teacher's width. `attention`: (queries, keys, values) of the last attention, each
    [batch, sequence, features]; None unless a loss needs it.
    """

    outputs: Tensor
    features: tuple[Tensor, ...] = ()
    attention: tuple[Tensor, Tensor, Tensor] | None = None


@dataclass(frozen=True)
class DistillInputs:
    """Student and teacher on the same samples. `mask`: 1 for tokens, 0 for padding, [batch, sequence], or None.
    `labels`: class indices int64 [batch], or None. `gather`: joins [rows, ...] of all processes, in order, with
    gradients; ours come after those of `process` others with as many. `heads`: of the attentions in
    `ModelOutputs.attention`."""

    student: ModelOutputs
    teacher: ModelOutputs
    mask: Tensor | None
    labels: Tensor | None
    temperature: float
    gather: Callable[[Tensor], Tensor]
    process: int = 0
    heads: int = 1


class Loss(NamedTuple):
    """`compute` gives the mean over this process's samples, so that processes with equally many average to the
    mean over all. `needs`: `features`, `attention` or `labels`, if any; `families`: the
    kinds of output that it is defined for, None for all."""

    compute: Callable[[DistillInputs], Tensor]
    needs: str = ""
    families: tuple[str, ...] | None = None

    def takes(self, family: str) -> bool:
        return self.families is None or family in self.families


_LEAST = 1e-4


def relative(error: Tensor, size: Tensor) -> Tensor:
    """The mean of `error` [rows] over `size` [rows]. A row of no size has no relative error, and must not outweigh all
    others: no size counts as less than 1e-4 of their mean; where all are 0, the errors count as they are."""
    mean = size.mean()
    return (error / torch.where(mean > 0, size.clamp(min=_LEAST * mean), torch.ones_like(size))).mean()
