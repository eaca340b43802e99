"""A student or a teacher, with the hooks that the chosen losses need."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.compress.distill.losses.types import ModelOutputs
from pipeline.compress.shared.forward import Batch, judged
from pipeline.compress.shared.patterns import matches, require_matches
from pipeline.compress.training.data import CACHED, LABELS
from pipeline.compress.training.feature_hooks import FeatureHooks, attention_hooks
from pipeline.core.model_spec import ModelSpec
from pipeline.source.torch_model import wrap


class ModelWithHooks(nn.Module):
    """`model` as it will be exported; its forward gives what losses look at.

    `blocks`: names of the modules in `model` whose outputs are features; `attention`: are queries, keys and values of
    the last attention wanted?
    """

    def __init__(self, model: nn.Module, spec: ModelSpec, blocks: Sequence[str], attention: bool) -> None:
        super().__init__()
        self.inner, self._family = wrap(model, spec), spec.family
        self.projections = nn.ModuleList()
        self._features = FeatureHooks(model, blocks)
        self._attention = attention_hooks(model) if attention else None

    def forward(self, batch: Batch) -> ModelOutputs:
        outputs = judged(self.inner, model_inputs(batch), self._family)
        features = tuple(value.float() for value in self._features.take())
        if len(self.projections):
            features = tuple(project(value) for project, value in zip(self.projections, features, strict=True))
        if self._attention is None:
            return ModelOutputs(outputs.float(), features)
        query, key, value = (seen.float() for seen in self._attention.take())
        return ModelOutputs(outputs.float(), features, (query, key, value))

    def project_to(self, widths: Sequence[int], own: Sequence[int], seed: int) -> None:
        """Learn a Linear from each feature's own width to the teacher's where they differ (TinyBERT, arXiv 1909.10351,
        eq. 8); it is not part of the model that is kept."""
        if list(widths) == list(own):
            return
        generator = torch.Generator().manual_seed(seed)
        for wide, narrow in zip(widths, own, strict=True):
            layer = nn.Linear(narrow, wide, bias=False)
            layer.weight.data = torch.randn(wide, narrow, generator=generator) / narrow**0.5
            self.projections.append(layer)


def model_inputs(batch: Batch) -> Batch:
    """The batch without what is only for the loss."""
    return {name: value for name, value in batch.items() if name not in (LABELS, CACHED)}


def set_mode(model: nn.Module, batch_norm: str) -> None:
    """Training without dropout; batch-norm statistics follow the data only if `batch_norm` is `train`."""
    model.eval()
    if batch_norm == "train":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # the common base class
                module.train()


def frozen_parameters(model: nn.Module, patterns: Sequence[str]) -> set[int]:
    """The ids of the parameters of `model` that any pattern names. StageError if a pattern matches none."""
    named = dict(model.named_parameters())
    require_matches("distill", "freeze", patterns, named, "parameter")
    return {id(parameter) for name, parameter in named.items() if matches(name, patterns)}


def flip_shift(images: Tensor, seed: int) -> Tensor:
    """Mirror half of the images [batch, channels, height, width] and move each by up to an eighth of its sides, edges
    reflected; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    count, _, height, width = images.shape
    flip = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flip.view(-1, 1, 1, 1), images.flip(-1), images)
    down, right = height // 8, width // 8
    padded = nn.functional.pad(images, (right, right, down, down), mode="reflect")
    tops = torch.randint(0, 2 * down + 1, (count,), generator=generator)
    lefts = torch.randint(0, 2 * right + 1, (count,), generator=generator)
    rows = tops.view(-1, 1) + torch.arange(height)
    columns = lefts.view(-1, 1) + torch.arange(width)
    index = torch.arange(count).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
