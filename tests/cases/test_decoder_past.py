"""A decoder with a cache, whose mask is as long as past and new tokens together, with real samples given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.model_spec import InputSpec
from pipeline.data.inputs import random_rows

WORDS, WIDTH = 100, 64


def save_decoder(path: Path) -> Path:
    """One head: the new tokens attend to the past ones and themselves. A mask of another length fails at run time."""
    draw = np.random.default_rng(0)
    arrays = {"table": (WORDS, WIDTH), "q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "head": (WIDTH, WORDS)}
    stored = [numpy_helper.from_array((draw.standard_normal(s) / 8).astype(np.float32), n) for n, s in arrays.items()]
    stored.append(numpy_helper.from_array(np.array([1]), "axis"))
    stored.append(numpy_helper.from_array(np.array(1, np.float32), "one"))
    stored.append(numpy_helper.from_array(np.array(-1e4, np.float32), "far"))
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("MatMul", ["x", "q"], ["query"]),
        helper.make_node("MatMul", ["x", "k"], ["new"]),
        helper.make_node("Concat", ["past.0.key", "new"], ["present.0.key"], axis=1),
        helper.make_node("Transpose", ["present.0.key"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["query", "turned"], ["scores"]),
        helper.make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "kept"], ["left"]),
        helper.make_node("Mul", ["left", "far"], ["bias"]),
        helper.make_node("Unsqueeze", ["bias", "axis"], ["row"]),
        helper.make_node("Add", ["scores", "row"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "present.0.key"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "head"], ["logits"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            info("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
            info("attention_mask", TensorProto.INT64, ["batch_size", "past_sequence_length + sequence_length"]),
            info("past.0.key", TensorProto.FLOAT, ["batch_size", "past_sequence_length", WIDTH]),
        ],
        [
            info("logits", TensorProto.FLOAT, ["batch_size", "sequence_length", WORDS]),
            info("present.0.key", TensorProto.FLOAT, ["batch_size", "total", WIDTH]),
        ],
        stored,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_import_is_proven_on_the_given_samples(edge: Any, workspace: Path) -> None:
    save_decoder(workspace / "decoder.onnx")
    draw = np.random.default_rng(0)
    past = draw.standard_normal((32, 7, WIDTH)).astype(np.float32)
    arrays = {"input_ids": draw.integers(0, WORDS, (32, 5)), "attention_mask": np.ones((32, 12), np.int64)}
    np.savez(workspace / "data.npz", **arrays, **{"past.0.key": past})
    flags = ["--calibration-data", "data.npz", "--calibration-samples", "16", "--eval-data", "data.npz"]
    done = edge("export", "-m", "decoder.onnx", "--task", "text-classification", "-t", "lenient", *flags, "-o", "out")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("axis", "length"), [("past + new", 12), ("past + 1", 7), ("past+new + 3", 15), ("new", 6), ("other", 6)]
)
def test_made_up_axes_are_sums_where_their_names_say_so(axis: str, length: int) -> None:
    specs = {
        "ids": InputSpec(shape=("batch", "new"), dtype="int64", values=9),
        "mask": InputSpec(shape=("batch", axis), dtype="int64"),
        "cache": InputSpec(shape=("batch", 2, "past", 4)),
    }
    (row,) = random_rows(specs, 1, dynamic=6, batch=5)
    assert {name: array.shape for name, array in row.items()} == {
        "ids": (5, 6),
        "mask": (5, length),
        "cache": (5, 2, 6, 4),
    }
