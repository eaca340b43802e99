"""Matching the last attention: which tokens look at which, and which values resemble each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # as everybody calls it

from pipeline.compress.distill.losses.types import DistillInputs, Loss


def attention_relation(pair: DistillInputs) -> Tensor:
    """KL(teacher || student) of softmax(Q K^T / sqrt(d)) and of softmax(V V^T / sqrt(d)), summed; the mean over heads
    and a sample's unmasked queries, then over samples.

    MiniLM (arXiv 2002.10957, eq. 6-10). Features are split into `pair.heads` relation heads for both models, so
    that their own head counts may differ (MiniLMv2, arXiv 2012.15828, sec. 3.1).
    """
    assert pair.student.attention is not None and pair.teacher.attention is not None  # noqa: S101  # `needs` it
    student_q, student_k, student_v = pair.student.attention
    teacher_q, teacher_k, teacher_v = pair.teacher.attention
    total = torch.zeros((), dtype=student_q.dtype, device=student_q.device)
    for ours, theirs in (
        (_scores(student_q, student_k, pair), _scores(teacher_q, teacher_k, pair)),
        (_scores(student_v, student_v, pair), _scores(teacher_v, teacher_v, pair)),
    ):
        total = total + _divergence(ours, theirs, pair.mask)
    return total


def _scores(left: Tensor, right: Tensor, pair: DistillInputs) -> Tensor:
    """Log of softmax(left right^T / sqrt(d)) over unmasked keys, [batch, heads, sequence, sequence]."""
    left, right = _split(left, pair.heads), _split(right, pair.heads)
    scores = left @ right.transpose(-1, -2) / left.shape[-1] ** 0.5
    if pair.mask is not None:
        scores = scores.masked_fill(pair.mask[:, None, None, :] == 0, torch.finfo(scores.dtype).min)
    return scores.log_softmax(-1)


def _split(values: Tensor, heads: int) -> Tensor:
    batch, length, width = values.shape
    return values.view(batch, length, heads, width // heads).transpose(1, 2)


def _divergence(ours: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
    rows = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1).mean(1)
    weights = torch.ones_like(rows) if mask is None else mask.to(rows.dtype)
    return ((rows * weights).sum(1) / weights.sum(1)).mean()


ATTENTION_RELATION = Loss(attention_relation, needs="attention")
