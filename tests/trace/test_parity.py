from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.errors import StageError
from pipeline.source.torch_model import load_float_model
from pipeline.trace.examples import example_inputs
from pipeline.trace.parity import check_parity, check_room

NAMES = ["input_ids", "attention_mask", "token_type_ids"]


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> torch.nn.Module:
    return load_float_model(tiny_bert, "AutoModel", trust_remote_code=False)


@pytest.fixture(scope="module")
def cases(model: torch.nn.Module) -> list[dict[str, torch.Tensor]]:
    return [example_inputs(model, "text", NAMES, batch, length, seed=batch) for batch, length in ((2, 16), (1, 3))]


def changed(trace: Path, folder: Path, name: str, factor: float) -> Path:
    """A copy of the traced file in which one weight is multiplied."""
    shutil.copytree(trace, folder)
    proto = onnx.load(folder / "model.onnx")
    for entry in proto.graph.initializer:
        if entry.name == name:
            entry.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry) * np.float32(factor), name))
    onnx.save(proto, folder / "changed.onnx")
    return folder / "changed.onnx"


def test_faithful_file_passes(model: torch.nn.Module, tiny_trace: Path, cases: list[dict[str, torch.Tensor]]) -> None:
    assert 0 <= check_parity(model, tiny_trace / "model.onnx", cases) < 1e-4


@pytest.mark.parametrize("name", ["encoder.layer.1.intermediate.dense.weight", "pooler.dense.weight"])
def test_changed_weight_is_found(
    name: str, model: torch.nn.Module, tiny_trace: Path, cases: list[dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    path = changed(tiny_trace, tmp_path / "copy", name, 1.05)
    with pytest.raises(StageError) as caught:
        check_parity(model, path, cases)
    start = r"The exported graph differs from the PyTorch model by [\d.e-]+ "
    pattern = start + r"\(largest output [\d.]+\) on input_ids \[2, 16\]\."
    assert re.fullmatch(pattern, caught.value.message)
    assert caught.value.remedy == (
        "This is an export error: try another --opset, and please report the model's architecture."
    )


def test_output_that_is_not_a_number_is_found(
    model: torch.nn.Module, tiny_trace: Path, cases: list[dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    path = changed(tiny_trace, tmp_path / "copy", "encoder.layer.0.output.dense.weight", float("nan"))
    with pytest.raises(StageError, match="differs from the PyTorch model by nan"):
        check_parity(model, path, cases)


def test_weights_that_are_no_numbers_are_named(
    model: torch.nn.Module, tiny_trace: Path, cases: list[dict[str, torch.Tensor]]
) -> None:
    """Both are the model's own, so that it is no error of the export."""
    spoiled = copy.deepcopy(model)
    spoiled.get_parameter("encoder.layer.0.output.dense.weight").data[0, 0] = float("nan")
    spoiled.get_parameter("encoder.layer.1.output.dense.bias").data[0] = float("inf")
    with pytest.raises(StageError) as caught:
        check_parity(spoiled, tiny_trace / "model.onnx", cases)
    assert caught.value.message == (
        "The model's weights 'encoder.layer.0.output.dense.weight' and 1 more hold values that are not finite (NaN or "
        "infinity)."
    )
    assert caught.value.remedy == "Copy the checkpoint again, or take one from before its training diverged."


def continuing_graph(path: Path, counted: str) -> Path:
    """A graph whose logits are its ids plus the length of the axis 2 of `past`, or 1 of `attention_mask`."""
    axis = {"past": 2, "attention_mask": 1}[counted]
    graph = helper.make_graph(
        [
            helper.make_node("Shape", [counted], ["length"], start=axis, end=axis + 1),
            helper.make_node("Add", ["input_ids", "length"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["logits"], to=TensorProto.FLOAT),
        ],
        "continuing",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
            helper.make_tensor_value_info("past", TensorProto.FLOAT, ["batch", 2, "past", 4]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def continued(past: int) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.tensor([[3, 4]]),
        "attention_mask": torch.ones(1, past + 2, dtype=torch.int64),
        "past": torch.ones(1, 2, past, 4),
    }


def test_a_graph_that_counts_a_buffers_room_as_tokens_is_refused(tmp_path: Path) -> None:
    path = continuing_graph(tmp_path / "model.onnx", "past")
    with pytest.raises(StageError) as raised:
        check_room(path, [continued(5)], room=16)
    assert raised.value.message == (
        "The exported graph counts a buffer's room as tokens: with room for 16 in its past the logits differ by 11 "
        "(largest 9) on input_ids [1, 2]."
    )
    check_room(path, [continued(16)], room=16)


def test_a_graph_that_counts_by_the_mask_takes_any_room(tmp_path: Path) -> None:
    check_room(continuing_graph(tmp_path / "model.onnx", "attention_mask"), [continued(5), continued(0)], room=16)
