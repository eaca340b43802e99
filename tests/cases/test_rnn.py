"""Models that give what torch's recurrent layers give, nested outputs, and booleans among them."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from model_specs import factory, tracing
from torch import Tensor, nn

from pipeline.core.errors import StageError, UsageError
from pipeline.core.model_spec import InputSpec
from pipeline.graph.files import MODEL
from pipeline.trace.graph_source import GraphSource
from pipeline.trace.module import output_names
from pipeline.trace.outputs import flat, names_of
from pipeline.trace.to_onnx import _proven

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of its own layers while they are traced

SOURCE = factory(data="audio", inputs={"x": InputSpec(shape=("batch", 4, 6))})
CASES = [{"x": torch.randn(2, 4, 6)}, {"x": torch.randn(3, 4, 6)}]
A, B, C, D = (torch.full((1,), float(number)) for number in range(4))


@dataclass
class Answer:
    scores: Tensor
    state: tuple[Tensor, Tensor]


Pair = namedtuple("Pair", "left right")  # as users write it


class Recurrent(nn.Module):
    """(output, (h, c)), as nn.LSTM returns."""

    def __init__(self, kind: type[nn.RNNBase], **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = kind(6, 4, batch_first=True, **settings)

    def forward(self, x: Tensor) -> Any:
        return self.rnn(x)


class Sure(nn.Module):
    """Logits, and which of them are positive."""

    def forward(self, x: Tensor) -> Any:
        y = x.mean(1)
        return y, y > 0, {"places": y.argmax(-1)}


class Structured(nn.Module):
    def forward(self, x: Tensor) -> Answer:
        return Answer(x.mean(1), (x + 1, x - 1))


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (A, ["logits"]),
        ((A, (B, C)), ["logits", "output1_0", "output1_1"]),
        (((A, B), C), ["logits", "output0_1", "output1"]),
        ([A, None, B], ["logits", "output2"]),
        ({"a": A, "b": (B, C)}, ["a", "b_0", "b_1"]),
        ((A, {"h": B}), ["logits", "output1_h"]),
        (Answer(A, (B, C)), ["scores", "state_0", "state_1"]),
        (Pair(A, (B,)), ["logits", "output1_0"]),
    ],
)
def test_nested_outputs_have_names(result: Any, names: list[str]) -> None:
    assert names_of(result, "logits") == names
    assert [float(tensor) for tensor in flat(result)] == [float(n) for n in range(len(names))]


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        (Recurrent(nn.LSTM), ["logits", "output1_0", "output1_1"]),
        (Recurrent(nn.GRU, bidirectional=True, num_layers=2), ["logits", "output1"]),
        (Sure(), ["logits", "output1", "output2_places"]),
        (Structured(), ["scores", "state_0", "state_1"]),
    ],
)
def test_model_is_exported_with_all_its_outputs(model: nn.Module, outputs: list[str], tmp_path: Path) -> None:
    made = _proven(GraphSource(MODEL, model.eval(), CASES), SOURCE, tracing(23, tmp_path), tmp_path / "model.onnx")
    assert [value.name for value in made.graph.graph.outputs] == outputs
    assert made.difference < 1e-5 and made.notes == ()


def test_weights_of_a_recurrent_layer_are_constants_under_their_names(tmp_path: Path) -> None:
    """Weights of some size, which the exporter does not reorder by itself."""
    model = Recurrent(nn.LSTM, bidirectional=True)
    model.rnn = nn.LSTM(64, 64, batch_first=True, bidirectional=True)
    source = factory(data="audio", inputs={"x": InputSpec(shape=("batch", 5, 64))})
    cases = [{"x": torch.randn(2, 5, 64)}, {"x": torch.randn(3, 5, 64)}]
    _proven(GraphSource(MODEL, model.eval(), cases), source, tracing(23, tmp_path), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    (layer,) = (node for node in graph.node if node.op_type == "LSTM")
    stored = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    assert list(layer.input[1:3]) == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    assert stored["rnn.weight_ih_l0"].shape == (2, 256, 64)


def test_axis_that_torch_fixes_is_told(tmp_path: Path) -> None:
    dynamic = factory(data="audio", inputs={"x": InputSpec(shape=("batch", "frames", 6))})
    with pytest.raises(StageError) as caught:
        _proven(
            GraphSource(MODEL, Recurrent(nn.LSTM).eval(), CASES),
            dynamic,
            tracing(23, tmp_path),
            tmp_path / "model.onnx",
        )
    assert caught.value.remedy == (
        "The model, or a layer of torch's in it, does not take every length of an axis that is declared as dynamic: "
        "declare its size. A Hugging Face model gets one through a factory (file.py:name) in its folder, and [inputs] "
        "in the recipe."
    )


class Strange(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, {1, 2}


def test_output_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        output_names(Strange(), CASES[0], "logits")
    assert caught.value.message == "The model's forward returns a set among its outputs."
    assert caught.value.remedy == "It must return tensors, or tuples, lists, dicts or dataclasses of them."


FACTORY = """
import torch
from torch import nn
def example_inputs(): return {"x": torch.randn(2, 5, 32)}
class Raw(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.rnn = nn.Linear(32, 128), nn.LSTM(128, 64, batch_first=True)
    def forward(self, x): return self.rnn(self.first(x))
def raw(): torch.manual_seed(0); return Raw()
"""


def test_recurrent_model_from_the_command_line(edge: Any, workspace: Path) -> None:
    (workspace / "model.py").write_text(FACTORY)
    np.savez(workspace / "x.npz", x=np.random.default_rng(0).standard_normal((32, 5, 32)).astype(np.float32))
    flags = ["--calibration-data", "x.npz", "--calibration-samples", "16", "--eval-data", "x.npz", "-o", "out"]
    done = edge("export", "-m", "model.py:raw", "--task", "audio-classification", "-t", "lenient", *flags)
    assert done.returncode == 0, done.stderr
    names = [value.name for value in onnx.load(workspace / "out" / "bundle" / "model.onnx").graph.output]
    assert names == ["logits", "output1_0", "output1_1"]
