"""Codes that a checkpoint has, as ONNX Runtime computes with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from pipeline.core.types import Scheme
from pipeline.formats import NUMBER_FORMATS
from pipeline.formats.format import Entry, Known, TensorClass
from pipeline.numerics.coded import Coded

K, N = 64, 24


def given(bits: int, order: bool = False, minima: bool = False) -> Coded:
    draw = np.random.default_rng(2)
    groups = (N, K // 32)
    return Coded(
        draw.integers(0, 1 << bits, (N, K), dtype=np.uint8),
        draw.uniform(0.01, 0.1, groups).astype(np.float32),
        np.zeros(groups, np.uint8) if minima else draw.integers(0, 1 << bits, groups, dtype=np.uint8),
        bits,  # type: ignore[arg-type]
        32,
        minima=draw.normal(size=groups).astype(np.float32) if minima else None,
        order=draw.permutation(K) if order else None,
    )


def run(op: TensorClass, coded: Coded, rank: int | None, data: NDArray[Any]) -> Any:
    """What the emitted operators give. `rank` None: of an input whose shape the graph does not tell."""
    weight = coded.values() if op == "table" else np.ascontiguousarray(coded.values().T)
    form = NUMBER_FORMATS.get(f"int{coded.bits}-block")(Scheme(name="t"))
    encoded = form.encode(op, weight, Known(given=coded))
    np.testing.assert_array_equal(form.decode(op, encoded, weight.shape), weight)
    entry = Entry(node="n", weight="W", op=op, format=form.name, shape=weight.shape, parameters=encoded.parameters)
    constant = ir.val("W", const_value=ir.tensor(weight, name="W"))
    x = ir.val("x", dtype=ir.DataType.FLOAT if op == "linear" else ir.DataType.INT64, shape=ir.Shape(data.shape))
    read = x
    nodes = []
    if rank is None:
        nodes = [ir.node("Identity", [x], name="hides the shape")]
        read = nodes[0].outputs[0]
        read.name = "hidden"
    node = (
        ir.node("MatMul", [read, constant], name="n")
        if op == "linear"
        else ir.node("Gather", [constant, read], name="n")
    )
    (y,) = node.outputs
    y.name, y.dtype = "y", ir.DataType.FLOAT
    graph = ir.Graph(
        [x], [y], nodes=[*nodes, node], initializers=[constant], opset_imports={"": 23, "com.microsoft": 1}
    )
    arrays = {f"W.{part}": array for part, array in encoded.arrays.items()}
    NUMBER_FORMATS.get(entry.format).emit(node, entry, arrays, {})
    session = ort.InferenceSession(ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString())
    return session.run(None, {"x": data})[0]


@pytest.mark.parametrize("rank", [2, 3, None])
@pytest.mark.parametrize(
    ("bits", "more"), [(4, {}), (8, {}), (2, {}), (4, {"order": True}), (8, {"order": True}), (4, {"minima": True})]
)
def test_products(bits: int, more: dict[str, bool], rank: int | None) -> None:
    coded = given(bits, **more)
    x = np.random.default_rng(0).normal(size=(5, K) if rank == 2 else (2, 5, K)).astype(np.float32)
    np.testing.assert_allclose(run("linear", coded, rank, x), x @ coded.values().T, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, None])
@pytest.mark.parametrize(("bits", "minima"), [(4, False), (8, False), (4, True)])
def test_tables(bits: int, minima: bool, rank: int | None) -> None:
    """Rows are exact: their scales are stored in 32 bits."""
    coded = given(bits, minima=minima)
    ids = np.array([3, 0, 7]) if rank == 1 else np.array([[3, 0], [7, 7]])
    np.testing.assert_array_equal(run("table", coded, rank, ids), coded.values()[ids])


def test_products_of_one_input_share_its_order() -> None:
    coded = given(4, order=True)
    weight = np.ascontiguousarray(coded.values().T)
    form = NUMBER_FORMATS.get("int4-block")(Scheme(name="t"))
    encoded = form.encode("linear", weight, Known(given=coded))
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape([1, K]))
    constants = [ir.val(name, const_value=ir.tensor(weight, name=name)) for name in ("V", "W")]
    nodes = [ir.node("MatMul", [x, constant], name=str(constant.name)) for constant in constants]
    for node in nodes:
        node.outputs[0].name = f"{node.name}.out"
    graph = ir.Graph(
        [x], [node.outputs[0] for node in nodes], nodes=nodes, initializers=constants, opset_imports={"": 23}
    )
    shared: dict[str, list[ir.Value]] = {}
    arrays = {f"{name}.{part}": array for name in ("V", "W") for part, array in encoded.arrays.items()}
    for node in nodes:
        entry = Entry(
            node=str(node.name),
            weight=str(node.name),
            op="linear",
            format=form.name,
            shape=weight.shape,
            parameters=encoded.parameters,
        )
        NUMBER_FORMATS.get(form.name).emit(node, entry, arrays, shared)
    assert [node.op_type for node in graph].count("Gather") == 1
