"""Matching what blocks inside the models compute."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # as everybody calls it

from pipeline.compress.distill.losses.types import DistillInputs, Loss, relative


def hidden_mse(pair: DistillInputs) -> Tensor:
    """|student - teacher|^2 / |teacher|^2 over each sample's unmasked values, the mean over samples and pairs of
    blocks.

    The hidden-state loss of TinyBERT (arXiv 1909.10351, eq. 8), relative to the teacher's size so that one weight
    suits all models and blocks.
    """
    terms = []
    for ours, theirs in zip(pair.student.features, pair.teacher.features, strict=True):
        error, size = (ours - theirs).square(), theirs.square()
        terms.append(relative(_per_sample(error, pair.mask), _per_sample(size, pair.mask)))
    return torch.stack(terms).mean()


def hidden_cosine(pair: DistillInputs) -> Tensor:
    """1 - cos of the two vectors at each unmasked position, the mean over a sample's positions, then over samples and
    pairs of blocks. DistilBERT's third loss (arXiv 1910.01108, sec. 3)."""
    terms = []
    for ours, theirs in zip(pair.student.features, pair.teacher.features, strict=True):
        axis = 1 if ours.dim() == 4 else -1  # images carry their channels first
        apart = 1 - F.cosine_similarity(ours, theirs, dim=axis)
        mask = pair.mask if pair.mask is not None and apart.shape == pair.mask.shape else torch.ones_like(apart)
        terms.append(((apart * mask).flatten(1).sum(1) / mask.flatten(1).sum(1)).mean())
    return torch.stack(terms).mean()


def _per_sample(values: Tensor, mask: Tensor | None) -> Tensor:
    """Sums [batch] over all but the first axis, padded positions of [batch, sequence, ...] left out."""
    if mask is not None and values.shape[:2] == mask.shape:
        values = values * mask.view(*mask.shape, *[1] * (values.dim() - 2))
    return values.flatten(1).sum(1)


HIDDEN_MSE = Loss(hidden_mse, needs="features")
HIDDEN_COSINE = Loss(hidden_cosine, needs="features")
