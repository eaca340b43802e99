from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from pipeline.core.errors import IntegrityError, StageError, UsageError
from pipeline.data.samples import Row, Samples, open_samples, write_samples
from pipeline.runtime.infer import judged_outputs
from pipeline.tasks.output_kind import Output
from pipeline.tasks.registry import OUTPUTS


def session_of(nodes: list[NodeProto], *, masked: bool = False) -> ort.InferenceSession:
    """A graph of the float input `x` (and an int64 `attention_mask`) with the outputs `y` and `other`."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]
    if masked:
        inputs.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "sequence"]))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "other")]
    graph = helper.make_graph([*nodes, helper.make_node("Neg", ["x"], ["other"])], "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def saved(folder: Path, rows: list[Row]) -> Samples:
    write_samples(folder, rows)
    return open_samples(folder)


def floats(*values: object) -> NDArray[np.float32]:
    return np.array(values, np.float32)


TWICE = helper.make_node("Add", ["x", "x"], ["y"])


def test_vectors_are_one_row_each(tmp_path: Path) -> None:
    samples = saved(tmp_path, [{"x": floats([1, 2])}, {"x": floats([3, 4])}])
    outputs = judged_outputs(session_of([TWICE]), samples)
    assert outputs.tolist() == [[2, 4], [6, 8]]
    assert outputs.dtype.name == "float32"


def test_token_states_become_their_mean_over_the_mask(tmp_path: Path) -> None:
    """(2 + 4) / 2, (20 + 40) / 2: the masked token 100, 100 is not counted; samples differ in length."""
    states = [floats([[1, 10], [2, 20], [100, 100]]), floats([[5, 6]])]
    masks = [np.array([[1, 1, 0]]), np.array([[1]])]
    rows = [{"x": state, "attention_mask": mask} for state, mask in zip(states, masks, strict=True)]
    outputs = judged_outputs(session_of([TWICE], masked=True), saved(tmp_path, rows))
    assert outputs.tolist() == [[3, 30], [10, 12]]


def test_token_states_without_a_mask_are_all_counted(tmp_path: Path) -> None:
    outputs = judged_outputs(session_of([TWICE]), saved(tmp_path, [{"x": floats([[1, 2], [3, 4]])}]))
    assert outputs.tolist() == [[4, 6]]


def test_samples_run_alone(tmp_path: Path) -> None:
    """x / max(x) over the whole run: together, the second sample's maximum would shrink the first."""
    nodes = [helper.make_node("ReduceMax", ["x"], ["m"]), helper.make_node("Div", ["x", "m"], ["y"])]
    outputs = judged_outputs(session_of(nodes), saved(tmp_path, [{"x": floats([1, 2])}, {"x": floats([50, 100])}]))
    assert outputs.tolist() == [[0.5, 1], [0.5, 1]]


def test_inputs_that_the_graph_does_not_take_are_left_out(tmp_path: Path) -> None:
    rows = [{"unused": np.array([[7]]), "x": floats([1])}]
    assert judged_outputs(session_of([TWICE]), saved(tmp_path, rows)).tolist() == [[2]]


def test_missing_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        judged_outputs(session_of([TWICE], masked=True), saved(tmp_path, [{"x": floats([1])}]))
    assert caught.value.message == "The graph asks for the input 'attention_mask'; the samples have x."


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_output_that_is_not_finite_is_refused(tmp_path: Path, bad: float) -> None:
    samples = saved(tmp_path, [{"x": floats([1, 2])}, {"x": floats([1, bad])}])
    with pytest.raises(StageError) as caught:
        judged_outputs(session_of([TWICE]), samples)
    assert caught.value.message == "Sample 2 gives an output that is not finite."


def test_progress_counts_samples(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    samples = saved(tmp_path, [{"x": floats([1])}] * 3)
    judged_outputs(session_of([TWICE]), samples, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_token_classes_are_rows_of_unmasked_tokens(tmp_path: Path) -> None:
    states = [floats([[1, 10], [2, 20], [100, 100]]), floats([[5, 6]])]
    masks = [np.array([[1, 1, 0]]), np.array([[1]])]
    rows = [{"x": state, "attention_mask": mask} for state, mask in zip(states, masks, strict=True)]
    outputs = [OUTPUTS.get("tokens").rows({"y": 2 * row["x"]}, row) for row in rows]
    assert [output.tolist() for output in outputs] == [[[2, 20], [4, 40]], [[10, 12]]]


def test_a_detectors_logits_stand_before_its_boxes() -> None:
    outputs = {"logits": floats([[1, 2, 3]]), "pred_boxes": floats([[4, 5, 6, 7]])}
    assert OUTPUTS.get("detector").rows(outputs, {}).tolist() == [[[1, 2, 3, 4, 5, 6, 7]]]


def test_a_detector_without_boxes_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"takes 'logits' .*; it has logits float32 \[1, 5, 3\], other float32 \[1, 2\]\."
    ):
        OUTPUTS.get("detector").judged([Output("logits", "float32", (1, 5, 3)), Output("other", "float32", (1, 2))])


def test_all_states_count_where_a_model_pools_its_tokens() -> None:
    """Four tokens become two states, so that the mask of tokens says nothing of them."""
    inputs = {"input_ids": np.zeros((1, 4), np.int64), "attention_mask": np.array([[1, 1, 0, 0]])}
    pooled = OUTPUTS.get("embedding").rows({"y": floats([[1, 10], [3, 30]])}, inputs)
    assert pooled.tolist() == [[2, 20]]
