"""Matching outputs: one by one, or by how the samples of a batch relate to each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # as everybody calls it

from pipeline.compress.distill.losses.types import DistillInputs, Loss, relative

NEIGHBOUR_TEMPERATURE = 0.05
"""Similarities that differ by this much differ by a factor of e in weight: about the spread within a neighbourhood."""


def outputs_mse(pair: DistillInputs) -> Tensor:
    """|student - teacher|^2 / |teacher|^2 of each row, the mean over rows: free of the outputs' scale."""
    error = (pair.student.outputs - pair.teacher.outputs).square().sum(-1)
    return relative(error, pair.teacher.outputs.square().sum(-1))


def embedding_cosine(pair: DistillInputs) -> Tensor:
    """1 - cos(student, teacher) of each row, the mean over rows."""
    return (1 - F.cosine_similarity(pair.student.outputs, pair.teacher.outputs, dim=-1)).mean()


def similarity(pair: DistillInputs) -> Tensor:
    """Mean squared difference between the two cosine-similarity matrices [rows, rows] of the batch, the diagonal
    (always 1) left out: relations instead of places, so that widths may differ.

    The similarity term of similarity-preserving distillation (Tung and Mori, arXiv 1907.09682, eq. 2-4), on
    cosines. The batch is that of all processes together.
    """
    ours, theirs, others = _similarities(pair)
    return (ours - theirs).square()[others].mean()


def neighbours(pair: DistillInputs) -> Tensor:
    """KL(teacher || student) of each row's softmax over its similarities to the other rows, the mean over rows: near
    neighbours count most. SEED (arXiv 2101.04731, eq. 4-6), with the batch in place of a queue.
    """
    ours, theirs, others = _similarities(pair)
    student = (ours / NEIGHBOUR_TEMPERATURE).masked_fill(~others, -torch.inf).log_softmax(-1)
    teacher = (theirs / NEIGHBOUR_TEMPERATURE).masked_fill(~others, -torch.inf).log_softmax(-1)
    terms = torch.where(others, teacher.exp() * (teacher - student), 0.0)
    return terms.sum(-1).mean()


def _similarities(pair: DistillInputs) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines of this process's rows with the rows of all: student's, teacher's, and where they are two rows."""
    student, teacher = F.normalize(pair.student.outputs, dim=-1), F.normalize(pair.teacher.outputs, dim=-1)
    all_students, all_teachers = pair.gather(student), pair.gather(teacher)
    ours, theirs = student @ all_students.T, teacher @ all_teachers.T
    others = torch.ones_like(ours, dtype=torch.bool)
    index = torch.arange(len(student), device=ours.device)
    others[index, index + pair.process * len(student)] = False
    return ours, theirs, others


def numbers_mse(pair: DistillInputs) -> Tensor:
    """Mean squared error over the variance of the teacher's numbers in the batch, the mean over outputs: what is lost
    of their variance. For one logit and regressions, whose zero means nothing."""
    error = (pair.student.outputs - pair.teacher.outputs).square().mean(0)
    return (error / pair.teacher.outputs.var(0, correction=0).clamp(min=1e-12)).mean()


_VECTORS = ("embedding", "classifier", "labels")
NUMBERS_MSE = Loss(numbers_mse, families=("scores", "token_scores"))
OUTPUTS_MSE = Loss(outputs_mse)
EMBEDDING_COSINE = Loss(embedding_cosine, families=_VECTORS)
SIMILARITY = Loss(similarity, families=_VECTORS)
NEIGHBOURS = Loss(neighbours, families=_VECTORS)
