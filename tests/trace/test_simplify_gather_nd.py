from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from pipeline.graph.files import save_model
from pipeline.trace.simplify_gather_nd import simplify_gathers

CONSTANTS = {"0": 0, "1": 1, "2": 2, "last": [-1], "rows_axes": [1, 2, 3], "columns_axes": [0, 1, 2], "both": [0, 1]}
MASK = np.arange(15).reshape(3, 5) % 2 == 0
Shapes = dict[str, list[int | str]]
SHAPES: Shapes = {"rows": ["b", 1, 1, 1], "columns": [1, 1, 1, "s"], "mask": ["b", "s"], "y": ["b", 1, 1, "s"]}


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"{output}/{op_type}", **attributes)


def gather() -> dict[str, NodeProto]:
    """As the exporter writes `mask[batch_indices, key_indices]`; by their outputs' names."""
    nodes = [
        node("Shape", "ids", "size0", start=0, end=1),
        node("Shape", "ids", "size1", start=1, end=2),
        node("Squeeze", "size0", "count0"),
        node("Squeeze", "size1", "count1"),
        node("Range", "0 count0 1", "range0"),
        node("Range", "0 count1 1", "range1"),
        node("Unsqueeze", "range0 rows_axes", "rows"),
        node("Unsqueeze", "range1 columns_axes", "columns"),
        node("Max", "rows columns", "all"),
        node("Shape", "all", "target"),
        node("Expand", "rows target", "rows_all"),
        node("Expand", "columns target", "columns_all"),
        node("Unsqueeze", "rows_all last", "rows_last"),
        node("Unsqueeze", "columns_all last", "columns_last"),
        node("Concat", "rows_last columns_last", "pairs", axis=-1),
        node("GatherND", "mask pairs", "y"),
    ]
    return {entry.output[0]: entry for entry in nodes}


def build(path: Path, nodes: dict[str, NodeProto], shapes: Shapes) -> ir.Model:
    """Inputs `ids` int64 [i, s] and `mask` bool; the shapes of what is computed are recorded, as tracers do."""
    kinds = {"mask": TensorProto.BOOL, "y": TensorProto.BOOL}
    infos = {n: helper.make_tensor_value_info(n, kinds.get(n, TensorProto.INT64), d) for n, d in shapes.items()}
    graph = helper.make_graph(
        list(nodes.values()),
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["i", "s"]), infos["mask"]],
        [infos["y"]],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in CONSTANTS.items()],
        value_info=[infos[name] for name in ("rows", "columns")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return ir.load(path)


def run(path: Path) -> NDArray[np.bool_]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    known = {"ids": np.zeros((3, 5), np.int64), "mask": MASK}
    return session.run(None, {entry.name: known[entry.name] for entry in session.get_inputs()})[0]


@pytest.mark.parametrize("batch", ["b", "i"])
def test_all_pairs_in_order_are_the_matrix_itself(tmp_path: Path, batch: str) -> None:
    """Also where the batch of the indices is that of another input."""
    shapes = SHAPES | {"rows": [batch, 1, 1, 1], "y": [batch, 1, 1, "s"]}
    model = build(tmp_path / "m.onnx", gather(), shapes)
    assert simplify_gathers(model.graph) == 1
    RemoveUnusedNodesPass()(model)
    assert [entry.op_type for entry in model.graph] == ["Unsqueeze"]
    assert [value.name for value in model.graph.outputs] == ["y"]
    save_model(model, tmp_path / "after.onnx")
    np.testing.assert_array_equal(run(tmp_path / "m.onnx"), MASK[:, None, None])
    np.testing.assert_array_equal(run(tmp_path / "after.onnx"), MASK[:, None, None])


@pytest.mark.parametrize(
    ("nodes", "shapes"),
    [
        ({"range0": node("Range", "1 count0 1", "range0")}, {}),
        ({"range1": node("Range", "0 count1 2", "range1")}, {}),
        ({"range1": node("Range", "2 count1 1", "range1")}, {}),
        ({"columns": node("Neg", "range1", "columns")}, {}),
        ({"pairs": node("Concat", "columns_last rows_last", "pairs", axis=-1)}, {}),
        ({"pairs": node("Identity", "rows_last", "pairs")}, {}),
        ({"rows_last": node("Identity", "rows_all", "rows_last")}, {}),
        ({"y": node("GatherND", "mask pairs", "y", batch_dims=1)}, {}),
        ({}, {"mask": ["b", "other"]}),
        ({}, {"mask": ["b", "s", 4]}),
        ({}, {"y": ["b", 1, 2, "s"]}),
        ({}, {"y": ["b", "s"]}),
        ({}, {"columns": [1, 1, 1, "other"]}),
        ({}, {"rows": ["other", 1, 1, 1], "y": ["other", 1, 1, "s"]}),
        ({}, {"rows": [1, "b", 1, 1]}),
    ],
)
def test_other_gathers_are_left_alone(tmp_path: Path, nodes: dict[str, NodeProto], shapes: Shapes) -> None:
    model = build(tmp_path / "m.onnx", gather() | nodes, SHAPES | shapes)
    assert simplify_gathers(model.graph) == 0
    assert len(list(model.graph)) == len(gather())


def test_nothing_is_simplified_without_recorded_shapes(tmp_path: Path) -> None:
    model = build(tmp_path / "m.onnx", gather(), SHAPES)
    for entry in model.graph:
        for value in entry.outputs:
            value.shape = None
    assert simplify_gathers(model.graph) == 0
