"""Weights of a PyTorch model as the number formats of a scheme store them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pipeline.core.types import Scheme
from pipeline.formats.format import TensorClass
from pipeline.formats.scheme import SchemeFormats


def round_weights(model: nn.Module, scheme: Scheme) -> int:
    """Replace the weights of Linear and Embedding modules by what `scheme` can store; returns the bytes that the
    whole model then takes. Each value goes to the nearest code, also where the scheme says GPTQ, which needs the
    exported graph: its bytes are the same, its scores better, so that the estimate is on the safe side."""
    formats = SchemeFormats(scheme)
    total = 0
    rounded: set[int] = set()
    for name, module in model.named_modules():
        op = _class_of(module)
        if op is None:
            continue
        weight = module.weight.detach().numpy()
        weight = weight.T if op == "linear" else weight
        form = formats.of_module(op, name)
        if form.leaves(op, weight):
            continue
        values, size = form.round(op, weight)
        module.weight.data = torch.from_numpy(np.ascontiguousarray(values.T if op == "linear" else values))
        total += size
        rounded.add(id(module.weight))
    return total + sum(p.numel() * 4 for p in model.parameters() if id(p) not in rounded)


def _class_of(module: nn.Module) -> TensorClass | None:
    if isinstance(module, nn.Linear):
        return "linear"
    return "table" if isinstance(module, nn.Embedding) else None
