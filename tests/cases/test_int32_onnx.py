"""A text classifier as exporters of other frameworks leave it: int32 inputs, a tokenizer beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.bundle.golden import golden_arrays, read_golden

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def save_classifier(path: Path, words: int, kinds: dict[str, int], length: int | str = "unk__2") -> Path:
    """The mean of the tokens' vectors, two layers on it, and four classes. Masks may be of any type."""
    draw = np.random.default_rng(0)
    weights = {"table": (words, 64), "kinds": (2, 64), "up": (64, 128), "down": (128, 4)}
    arrays = {name: draw.standard_normal(shape).astype(np.float32) / 8 for name, shape in weights.items()}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Gather", ["kinds", "segments"], ["of_kind"]),
        helper.make_node("Cast", ["token_type_ids"], ["segments"], to=TensorProto.INT64),
        helper.make_node("Add", ["words", "of_kind"], ["both"]),
        helper.make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["column"]),
        helper.make_node("Mul", ["both", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["sum", "up"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "down"], ["logits"]),
    ]
    nodes = [nodes[0], nodes[2], nodes[1], *nodes[3:]]
    axes = {"last": np.array([2]), "middle": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(name, kinds[name], ["unk__1", length]) for name in INPUTS],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["unk__1", 4])],
        [numpy_helper.from_array(array, name) for name, array in {**arrays, **axes}.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("ids", "mask", "length"),
    [
        (TensorProto.INT32, TensorProto.BOOL, "unk__2"),
        pytest.param(TensorProto.INT32, TensorProto.INT32, "unk__2", marks=pytest.mark.slow),
        pytest.param(TensorProto.INT64, TensorProto.FLOAT, 24, marks=pytest.mark.slow),
    ],
)
def test_rows_are_fitted_to_the_graph(
    ids: int, mask: int, length: int | str, edge: Any, workspace: Path, save_tokenizer: Any
) -> None:
    (workspace / "model").mkdir()
    words = save_tokenizer(workspace / "model")
    kinds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": TensorProto.INT32}
    save_classifier(workspace / "model" / "model.onnx", words, kinds, length)
    flags = ["--calibration-data", "calibration.txt", "--calibration-samples", "16", "--eval-data", "evaluation.txt"]
    task = ["--task", "text-classification", "-t", "lenient", "--json"]
    done = edge("export", "-m", "model/model.onnx", *task, *flags, "-o", "out")
    assert done.returncode == 0, done.stderr
    golden = golden_arrays(workspace / "out" / "bundle", 0, read_golden(workspace / "out" / "bundle").inputs)
    assert golden["input_ids"].dtype == helper.tensor_dtype_to_np_dtype(ids)
    assert golden["attention_mask"].dtype == helper.tensor_dtype_to_np_dtype(mask)
    metadata = json.loads((workspace / "out" / "bundle" / "metadata.json").read_text())
    notes = json.loads(done.stdout)["notes"]
    if length == 24:
        assert golden["input_ids"].shape == (1, 24) and metadata["max_length"] == 24
        assert not golden["attention_mask"][0, -1]  # padded
        cut = "Texts are cut to 24 tokens, and measured so, instead of the target's 32: the model takes no more "
        assert f"{cut}(the fixed axis of its inputs)." in notes
    else:
        assert metadata["max_length"] == 32 and not any("cut to" in note for note in notes)


def test_unknown_node_name_is_told_before_anything_runs(edge: Any, workspace: Path, save_tokenizer: Any) -> None:
    (workspace / "model").mkdir()
    words = save_tokenizer(workspace / "model")
    save_classifier(workspace / "model" / "model.onnx", words, dict.fromkeys(INPUTS, TensorProto.INT32))
    flags = ["--task", "text-classification", "-t", "lenient", "--nodes-to-exclude", "encoder*", "--dry-run"]
    done = edge("export", "-m", "model/model.onnx", *flags, "--eval-data", "evaluation.txt")
    assert done.returncode == 2
    assert "--nodes-to-exclude 'encoder*' matches no node of 'model.onnx'." in done.stderr
    assert "Names look like: words/Gather, of_kind/Gather, hidden/MatMul. * matches anything." in done.stderr
