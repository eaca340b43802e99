"""A loss of distill."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from pipeline.compress.distill.losses.types import DistillInputs, Loss


def huber(pair: DistillInputs) -> Tensor:
    """Huber loss of the outputs: squared near the teacher's, linear far from them."""
    return functional.huber_loss(pair.student.outputs, pair.teacher.outputs)


HUBER = Loss(huber)
