"""What a model costs to run and to store."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, example: dict[str, Tensor]) -> int:
    """Multiply-accumulates of one call, of products with weights and of activations: convolutions, linear layers and
    attention, as `checks.macs` counts them in a graph."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(**example)
    return int(counter.get_total_flops()) // 2
