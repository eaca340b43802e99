"""Matching a teacher's class distribution, and the labels themselves."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # as everybody calls it

from pipeline.compress.distill.losses.types import DistillInputs, Loss
from pipeline.core.errors import StageError


def soft_labels(pair: DistillInputs) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over rows.

    Hinton et al. (arXiv 1503.02531, sec. 2); T^2 keeps gradients of the same size when T changes.
    """
    if pair.teacher.outputs.shape[-1] == 1:
        raise StageError(
            "distill: the loss 'soft_labels' compares shares of several classes; this model puts out one number.",
            "Use losses = { numbers_mse = 1.0 }.",
        )
    temperature = pair.temperature
    student = (pair.student.outputs / temperature).log_softmax(-1)
    teacher = (pair.teacher.outputs / temperature).log_softmax(-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def hard_labels(pair: DistillInputs) -> Tensor:
    """Cross-entropy of the student's logits [batch, classes] with `labels` [batch]."""
    assert pair.labels is not None  # noqa: S101  # the pass refuses to start without
    return F.cross_entropy(pair.student.outputs, pair.labels)


SOFT_LABELS = Loss(soft_labels, families=("classifier", "tokens", "language_model"))
HARD_LABELS = Loss(hard_labels, needs="labels", families=("classifier",))
