"""How many values an integer input may have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pipeline.source.onnx_file import read_onnx

TABLE = np.zeros((7, 4), np.float32)


def values(path: Path, nodes: list[NodeProto], kind: int = TensorProto.INT64) -> int:
    stored = [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.array(5), "depth")]
    stored += [numpy_helper.from_array(np.array([0, 1], np.float32), "on")]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("ids", kind, ["batch", 3])], [info("y", TensorProto.FLOAT, None)], stored
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return read_onnx(path)[0]["ids"].values


NODE = helper.make_node


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([NODE("Gather", ["table", "ids"], ["y"])], 7),
        ([NODE("Gather", ["table", "ids"], ["y"], axis=1)], 4),
        ([NODE("Cast", ["ids"], ["a"], to=TensorProto.INT32), NODE("Gather", ["table", "a"], ["y"])], 7),
        ([NODE("OneHot", ["ids", "depth", "on"], ["y"])], 5),
        ([NODE("Gather", ["table", "ids"], ["a"]), NODE("OneHot", ["ids", "depth", "on"], ["y"])], 5),
        ([NODE("Cast", ["ids"], ["y"], to=TensorProto.FLOAT)], 2),
        ([NODE("Mul", ["ids", "depth"], ["a"]), NODE("Gather", ["table", "a"], ["y"])], 2),
    ],
    ids=["table", "axis", "cast", "one-hot", "smallest", "none", "changed"],
)
def test_tables_bound_their_indices(tmp_path: Path, nodes: list[NodeProto], expected: int) -> None:
    assert values(tmp_path / "m.onnx", nodes) == expected


def test_bytes_without_a_table_may_be_any(tmp_path: Path) -> None:
    cast = [NODE("Cast", ["ids"], ["y"], to=TensorProto.FLOAT)]
    assert values(tmp_path / "m.onnx", cast, TensorProto.UINT8) == 256
