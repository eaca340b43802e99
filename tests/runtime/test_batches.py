"""Samples of one shape are run together, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from pipeline.core.errors import IntegrityError, UsageError
from pipeline.data.samples import Samples, open_samples, write_samples
from pipeline.runtime.batches import batches
from pipeline.runtime.infer import judged_outputs


def session_of(first_axis: int | str) -> ort.InferenceSession:
    """y [batch, 3] = the sum of x [batch, length, 3] over its length."""
    axes = helper.make_node("Constant", [], ["axes"], value_ints=[1])
    total = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [first_axis, "length", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([axes, total], "g", [x], [y]), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    """Six samples of 2, 4, 2, 2, 4 and 1 rows."""
    generator = np.random.default_rng(0)
    lengths = (2, 4, 2, 2, 4, 1)
    write_samples(tmp_path, ({"x": generator.normal(size=(1, n, 3)).astype(np.float32)} for n in lengths))
    return open_samples(tmp_path)


def test_equal_shapes_run_together_in_a_fixed_order(samples) -> None:
    grouped = [positions for positions, _ in batches(session_of("batch"), samples, 2)]
    assert grouped == [[0, 2], [3], [1, 4], [5]]


def test_a_fixed_batch_axis_is_respected(samples) -> None:
    grouped = [positions for positions, _ in batches(session_of(1), samples, 8)]
    assert sorted(grouped) == [[0], [1], [2], [3], [4], [5]]


def test_outputs_stay_in_sample_order(samples) -> None:
    alone = judged_outputs(session_of("batch"), samples)
    together = judged_outputs(session_of("batch"), samples, batch=4)
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_a_missing_input_is_named(tmp_path) -> None:
    write_samples(tmp_path, [{"other": np.ones((1, 2, 3), np.float32)}])
    with pytest.raises(IntegrityError, match="The graph asks for the input 'x'; the samples have other"):
        list(batches(session_of("batch"), open_samples(tmp_path), 2))


@pytest.mark.parametrize(("shape", "found"), [((1, 2, 4), r"\[2, 4\]"), ((1, 3), r"\[3\]")])
def test_a_sample_that_does_not_fit_the_graph_is_named(tmp_path, shape, found) -> None:
    write_samples(tmp_path, ({"x": np.zeros(size, np.float32)} for size in ((1, 5, 3), shape)))
    with pytest.raises(UsageError, match=rf"Sample 2 has 'x' of {found}; the model takes \[any, 3\]"):
        list(batches(session_of("batch"), open_samples(tmp_path), 2))
