"""Which constants of a graph are weights, wherever they stand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from profiled import MS, body_of, float_values, graph_of, node, record

from pipeline.checks.coverage import match
from pipeline.checks.weights import Graph
from pipeline.graph.operators import CONTROL_FLOW, MOVES, NO_WEIGHTS, WEIGHT_INPUTS


def test_what_is_a_weight() -> None:
    """Codes of an embedding are, behind a cast too; its per-row scales, indices, norms and biases are not."""
    graph = graph_of(
        [
            node("Gather", ["codes", "ids"], ["a"]),
            node("Gather", ["row_scales", "ids"], ["b"]),
            node("Gather", ["positions", "ids"], ["c"]),
            node("LayerNormalization", ["a", "gain"], ["d"]),
            node("DequantizeLinear", ["w8", "gain"], ["w"]),
            node("Gemm", ["d", "w", "bias"], ["e"]),
            node("GatherBlockQuantized", ["packed", "ids", "gain"], ["f"], bits=4, **MS),
            node("MatMul", ["e", "half"], ["g"]),
            node("MatMul", ["g", "half"], ["h"]),
        ],
        {
            "codes": np.zeros((5, 4), np.int8),
            "row_scales": np.zeros((5, 1), np.float32),
            "positions": np.zeros((1, 9), np.int64),
            "gain": np.zeros(4, np.float32),
            "bias": np.zeros(4, np.float32),
            "w8": np.zeros((4, 4), np.int8),
            "packed": np.zeros((6, 8), np.uint8),
            "half": np.zeros((4, 2), np.float16),
        },
    )
    assert [(item.name, item.op_type, item.values, item.bits) for item in graph.weights] == [
        ("codes", "Gather", 20, 8),
        ("w8", "Gemm", 16, 8),
        ("packed", "GatherBlockQuantized", 96, 4),
        ("half", "MatMul", 8, 16),
    ]


def test_every_operator_of_onnx_is_known_or_counted_as_float() -> None:
    """What a new version of ONNX adds has to be put where it belongs; these four are left to the bound."""
    listed = NO_WEIGHTS | MOVES | CONTROL_FLOW | set(WEIGHT_INPUTS) | {"Einsum"}
    assert not (NO_WEIGHTS & MOVES) | ((NO_WEIGHTS | MOVES) & set(WEIGHT_INPUTS))
    named = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert named - listed == {"CausalConvWithState", "DFT", "LinearAttention", "STFT"}


def test_constants_of_operators_that_no_table_knows() -> None:
    """A matrix that is moved and constants of an unknown operator count; settings, biases, norms, tokens do not."""
    attributes = {"coefficients": [0.0] * 70, "alphas": [1.0] * 3}
    graph = graph_of(
        [
            node("Einsum", ["x", "e"], ["a"], equation="bi,ij->bj"),
            node("Mine", ["a", "m", "few"], ["b"], domain="my.own", name="mine", **attributes),
            node("Slice", ["positions", "starts", "ends"], ["c"]),
            node("Concat", ["token", "b"], ["d"], axis=1),
            node("Add", ["d", "big"], ["f"]),
            node("Add", ["f", "big"], ["g"], domain="my.own"),
            node("LayerNormalization", ["g", "gain"], ["h"]),
            node("Gather", ["wide", "ids"], ["i"]),
            node("GatherElements", ["lengths", "ids"], ["j"]),
        ],
        {
            "e": float_values(8, 8),
            "m": float_values(64),
            "few": float_values(4, 4),
            "positions": float_values(1, 16, 8),
            "starts": np.zeros(1, np.int64),
            "ends": np.zeros(1, np.int64),
            "token": float_values(1, 1, 128),
            "big": float_values(16, 16),
            "gain": float_values(128),
            "wide": float_values(100, 1),
            "lengths": np.zeros((16, 16), np.int64),
        },
    )
    found = [(item.name, item.op_type, item.values) for item in graph.weights]
    assert found == [
        ("e", "Einsum", 64),
        ("m", "Mine", 64),
        ("mine.coefficients", "Mine", 70),
        ("positions", "Slice", 128),
        ("big", "Add", 256),
        ("wide", "Gather", 100),
    ]


def test_constants_however_they_are_stored_and_turned() -> None:
    """As attributes of Constant nodes, sparse, behind chains, made of other constants; not sizes of them."""
    sparse = onnx.SparseTensorProto(dims=[8, 8])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(float_values(3), "s"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.arange(3), "s.indices"))
    floats = [0.5] * 64
    nodes = [
        node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(float_values(8, 8), "x")),
        node("Constant", [], ["flat"], value_floats=floats),
        node("Constant", [], ["shape"], value_ints=[8, 8]),
        node("Constant", [], ["strings"], value_strings=["a"]),
        node("Reshape", ["flat", "shape"], ["square"]),
        node("Transpose", ["square"], ["turned"]),
        node("Cast", ["w8"], ["wide"], to=1),
        node("Mul", ["wide", "scale"], ["scaled"]),
        node("Shape", ["mask"], ["size"]),
        node("MatMul", ["x", "c"], ["a"]),
        node("MatMul", ["a", "turned"], ["b"]),
        node("MatMul", ["b", "scaled"], ["d"]),
        node("MatMul", ["d", "s"], ["e"]),
        node("Expand", ["e", "size"], ["y"]),
    ]
    constants = {"w8": np.zeros((8, 8), np.int8), "scale": np.float32(1).reshape(()), "mask": float_values(9, 9)}
    graph = graph_of(nodes, constants)
    graph.model.graph.sparse_initializer.append(sparse)
    found = [(item.name, item.values, item.bits) for item in Graph(graph.model).weights]
    assert found == [("c", 64, 32), ("flat", 64, 32), ("w8", 64, 8), ("s", 64, 32)]


def test_weights_in_branches_loops_and_functions() -> None:
    """Two branches may call their weights alike; a Loop's state that never changes and what a Scan slices are constant;
    a Loop's state that changes is not, although it begins with a constant."""
    then = body_of([node("MatMul", ["x", "w"], ["t"], name="p")], [], ["t"], w=float_values(8, 8))
    other = body_of([node("MatMul", ["x", "w"], ["e"], name="p")], [], ["e"], w=np.zeros((8, 16), np.int8))
    steps = [node("MatMul", ["h", "kept"], ["n"]), node("Identity", ["kept"], ["k"]), node("Identity", ["c"], ["c2"])]
    loop = body_of(steps, ["i", "c", "h", "kept"], ["c2", "n", "k"])
    scan = body_of([node("MatMul", ["s", "slice"], ["t"])], ["s", "slice"], ["t"])
    graph = graph_of(
        [
            node("If", ["cond"], ["a"], then_branch=then, else_branch=other),
            node("Loop", ["", "cond", "start", "w2"], ["b", "b2"], body=loop),
            node("Scan", ["b", "layers"], ["d"], body=scan, num_scan_inputs=1),
            node("Mine", ["d", "w3"], ["y"], domain="local"),
        ],
        {
            "start": float_values(1, 8),
            "w2": float_values(8, 9),
            "layers": float_values(3, 9, 9),
            "w3": float_values(9, 7),
        },
    )
    mine = helper.make_function(
        "local", "Mine", ["x", "w"], ["y"], [node("MatMul", ["x", "w"], ["y"])], [*graph.model.opset_import]
    )
    graph.model.functions.append(mine)
    graph.model.opset_import.extend([helper.make_opsetid("local", 1)])
    graph = Graph(graph.model)
    assert [(item.name, item.dims, item.bits, item.body) for item in graph.weights] == [
        ("w", (8, 16), 8, "If"),
        ("w", (8, 8), 32, "If"),
        ("w2", (8, 9), 32, "Loop"),
        ("layers", (3, 9, 9), 32, "Scan"),
        ("w3", (9, 7), 32, ""),
    ]
    (found,) = match(graph, [record("MatMul", ((2, 8),), ((2, 8),), "p")])
    assert [item.bits for item in graph.weights_of(found[0])] == [32]  # the float branch stands for both
