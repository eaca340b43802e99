"""Any torch.nn.Module to ONNX."""

from __future__ import annotations

import onnxruntime as ort
import pytest
import torch
from model_specs import factory
from torch import nn

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec
from pipeline.graph.files import save_model
from pipeline.trace.module import output_names, run, trace_module
from pipeline.trace.outputs import flat

SOURCE = factory(inputs={"x": InputSpec(shape=("batch", 3, "length"))})


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x).amax(-1)


class Two(nn.Module):
    def forward(self, x):
        return {"first": x + 1, "second": x - 1}


def test_declared_axes_are_dynamic_and_a_lone_output_has_the_tasks_name(tmp_path) -> None:
    model = Net().eval()
    graph = trace_module(model, {"x": torch.randn(2, 3, 16)}, SOURCE, 21)
    save_model(graph, tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["logits"]
    x = torch.randn(5, 3, 9)
    (actual,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(actual), model(x))


def test_outputs_of_a_dict_keep_their_names() -> None:
    assert output_names(Two(), {"x": torch.ones(1)}, "logits") == ["first", "second"]
    assert output_names(nn.Identity(), {"input": torch.ones(1)}, "logits") == ["logits"]


def test_flat_finds_all_tensors_in_order() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert flat(a) == [a]
    assert flat((a, None, b)) == [a, b]
    assert flat({"a": a, "b": b}) == [a, b]


def test_examples_that_do_not_fit() -> None:
    with pytest.raises(UsageError) as caught:
        run(Net(), {"x": torch.ones(1, 2, 4)})
    assert caught.value.message.startswith("The model cannot run its example inputs (x float32 [1, 2, 4]): ")


def test_an_input_that_forward_does_not_take() -> None:
    with pytest.raises(UsageError) as caught:
        run(Net(), {"pixels": torch.ones(1, 3, 4)})
    assert caught.value.message == "The model has no input 'pixels'."
    assert caught.value.remedy == "Its forward takes x: name the inputs so."
