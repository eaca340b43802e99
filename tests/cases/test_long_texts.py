"""A model that computes otherwise once a text is long, and remembers it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_specs import factory, tracing
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.core.model_spec import InputSpec
from pipeline.graph.files import MODEL
from pipeline.trace.graph_source import GraphSource
from pipeline.trace.to_onnx import _proven

SOURCE = factory(data="text", inputs={"x": InputSpec(shape=("batch", "tokens"))})


class Switching(nn.Module):
    """Sparse until the first short text, as BigBird."""

    def __init__(self) -> None:
        super().__init__()
        self.sparse = True

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] <= 32:
            self.sparse = False
        return x[:, ::2].sum(1, keepdim=True) if self.sparse else x.sum(1, keepdim=True)


def test_other_computation_on_long_texts_is_found(tmp_path: Path) -> None:
    cases = [{"x": torch.rand(2, length)} for length in (16, 21, 64)]
    with pytest.raises(StageError) as caught:
        _proven(GraphSource(MODEL, Switching().eval(), cases), SOURCE, tracing(22, tmp_path), tmp_path / "model.onnx")
    assert caught.value.message.startswith("The exported graph differs from the PyTorch model by ")
    assert caught.value.message.endswith(" on x [2, 64].")
    assert caught.value.remedy == (
        "It equals the model on short texts: the model computes otherwise on long ones. Choose one way in its config "
        '(for BigBird "attention_type": "original_full"), or give a shorter --sequence-length.'
    )
