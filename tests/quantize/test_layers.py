from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from pipeline.core.artifact import Artifact
from pipeline.core.errors import UsageError
from pipeline.graph.edit import add_constant
from pipeline.quantize.layers import LeftEntry, find_layers, read_layers

MakeGraph = Callable[..., Artifact]


def weight(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.ones(shape, np.float32)


def left_reasons(make_graph: MakeGraph, node: NodeProto, shape: Sequence[int], x: Sequence[int | str]) -> list[str]:
    """Reasons for the one weighted node of a graph; it must not be taken."""
    artifact = make_graph([node], {"W": weight(*shape)}, {"x": x}, {"y": [f"d{axis}" for axis in range(len(x))]})
    layers, left = find_layers(ir.load(artifact.file("model.onnx")).graph, ())
    assert not layers
    assert [(entry.weight, entry.op_type, entry.bytes) for entry in left] == [
        ("W", node.op_type, 4 * int(np.prod(shape)))
    ]
    return [entry.reason for entry in left]


def test_products_and_tables_are_found_in_order(graph: Artifact) -> None:
    layers, left = find_layers(ir.load(graph.file("model.onnx")).graph, ())
    found = [(layer.op, layer.node.name, layer.activation, layer.weight_name, layer.weight.shape) for layer in layers]
    assert found == [
        ("table", "words/Gather", "", "table", (60, 100)),
        ("linear", "a/MatMul", "h", "A", (100, 48)),
        ("linear", "b/MatMul", "h", "B", (100, 64)),
    ]
    assert left == []


@pytest.mark.parametrize(
    ("node", "shape", "x", "reason"),
    [
        (
            helper.make_node("MatMul", ["x", "W"], ["y"], name="n"),
            (63, 65),
            ["r", 63],
            "only 4095 values: less than its scales and extra nodes would cost",
        ),
    ],
)
def test_reasons_to_stay_in_float(
    make_graph: MakeGraph, node: NodeProto, shape: Sequence[int], x: Sequence[int | str], reason: str
) -> None:
    assert left_reasons(make_graph, node, shape, x) == [reason]


def test_convolution_is_found_however_small(make_graph: MakeGraph) -> None:
    """Whether a small one pays depends on its neighbours: `find_region` decides."""
    node = helper.make_node("Conv", ["x", "W"], ["y"], name="n")
    artifact = make_graph([node], {"W": weight(2, 1, 3)}, {"x": ["b", 1, 9]}, {"y": ["b", 2, 7]})
    (layer,), left = find_layers(ir.load(artifact.file("model.onnx")).graph, ())
    assert (layer.op, layer.activation, layer.weight.shape, left) == ("conv", "x", (2, 1, 3), [])


@pytest.mark.parametrize(
    ("node", "shape", "x", "op", "place"),
    [
        (helper.make_node("MatMul", ["x", "W"], ["y"], name="n"), (2, 64, 64), ["b", "r", 64], "other", 1),
        (helper.make_node("MatMul", ["W", "x"], ["y"], name="n"), (64, 64), [64, "r"], "other", 0),
        (helper.make_node("Gemm", ["x", "W"], ["y"], name="n"), (64, 64), ["r", 64], "other", 1),
        (helper.make_node("ConvTranspose", ["x", "W"], ["y"], name="n"), (16, 64, 3, 3), ["b", 16, 8, 8], "other", 1),
        (
            helper.make_node("Einsum", ["x", "W"], ["y"], name="n", equation="ab,bc->ac"),
            (64, 64),
            ["r", 64],
            "other",
            1,
        ),
    ],
)
def test_what_no_integer_kernel_takes_is_stored(
    make_graph: MakeGraph, node: NodeProto, shape: Sequence[int], x: Sequence[int | str], op: str, place: int
) -> None:
    artifact = make_graph([node], {"W": weight(*shape)}, {"x": x}, {"y": [f"d{axis}" for axis in range(len(x))]})
    (layer,), left = find_layers(ir.load(artifact.file("model.onnx")).graph, ())
    assert (layer.op, layer.place, layer.activation, left) == (op, place, "", [])


def lstm(hidden: int, **more: Any) -> NodeProto:
    return helper.make_node("LSTM", ["x", "W", "R", "B"], ["y"], name="n", hidden_size=hidden, **more)


@pytest.mark.parametrize(
    ("hidden", "attributes", "op"),
    [(191, {}, "other"), (192, {}, "lstm"), (192, {"layout": 1}, "other")],
)
def test_wide_lstms_run_in_integers(make_graph: MakeGraph, hidden: int, attributes: dict[str, int], op: str) -> None:
    """Layout 1 has no kernel at all in ONNX Runtime, and biases are no factors."""
    weights = {"W": weight(1, 4 * hidden, 40), "R": weight(1, 4 * hidden, hidden), "B": weight(1, 8 * hidden)}
    artifact = make_graph([lstm(hidden, **attributes)], weights, {"x": ["t", "b", 40]}, {"y": ["a", "b", "c", "d"]})
    layers, left = find_layers(ir.load(artifact.file("model.onnx")).graph, ())
    assert [(layer.op, layer.place, layer.weight_name) for layer in layers] == [(op, 1, "W"), (op, 2, "R")]
    assert [(entry.weight, entry.reason) for entry in left] == [("B", "it is a bias or a state, not a factor")]


def test_convolution_with_a_computed_bias_is_stored(make_graph: MakeGraph) -> None:
    nodes = [
        helper.make_node("Abs", ["W1"], ["bias"], name="a"),
        helper.make_node("Conv", ["x", "W", "bias"], ["y"], name="n"),
    ]
    weights = {"W": weight(64, 16, 3, 3), "W1": weight(64)}
    artifact = make_graph(nodes, weights, {"x": ["b", 16, 8, 8]}, {"y": ["b", 64, 6, 6]})
    (layer,), left = find_layers(ir.load(artifact.file("model.onnx")).graph, ())
    assert (layer.op, left) == ("other", [])


def test_4096_values_are_enough(make_graph: MakeGraph) -> None:
    node = helper.make_node("MatMul", ["x", "W"], ["y"], name="n")
    artifact = make_graph([node], {"W": weight(64, 64)}, {"x": ["r", 64]}, {"y": ["r", 64]})
    layers, left = find_layers(ir.load(artifact.file("model.onnx")).graph, ())
    assert (len(layers), left) == (1, [])


def test_gather_of_columns_stays_in_float(make_graph: MakeGraph) -> None:
    node = helper.make_node("Gather", ["W", "ids"], ["y"], axis=1, name="n")
    artifact = make_graph([node], {"W": weight(64, 64)}, {"ids": ["n"]}, {"y": [64, "n"]})
    layers, left = find_layers(ir.load(artifact.file("model.onnx")).graph, ())
    assert (layers, [entry.reason for entry in left]) == ([], ["it gathers columns, not rows"])


def test_products_of_two_activations_and_biases_are_no_weights(make_graph: MakeGraph) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["s"], name="s"),
        helper.make_node("Add", ["s", "bias"], ["y"], name="n"),
    ]
    artifact = make_graph(nodes, {"bias": weight(64)}, {"x": [64, 64]}, {"y": [64, 64]})
    assert find_layers(ir.load(artifact.file("model.onnx")).graph, ()) == ([], [])


@pytest.mark.parametrize(
    ("patterns", "excluded"),
    [
        (("a/MatMul",), {"A"}),
        (("*/MatMul",), {"A", "B"}),
        (("[ab]/*",), {"A", "B"}),
        (("?/*", "words/*"), {"A", "B", "table"}),
    ],
)
def test_exclusion_patterns(graph: Artifact, patterns: tuple[str, ...], excluded: set[str]) -> None:
    layers, left = find_layers(ir.load(graph.file("model.onnx")).graph, patterns)
    assert {entry.weight for entry in left} == excluded
    assert {entry.reason for entry in left} == {"excluded by name"}
    assert {layer.weight_name for layer in layers} == {"A", "B", "table"} - excluded


@pytest.mark.parametrize("pattern", ["c/*", "MatMul", "A/MATMUL"])
def test_pattern_that_matches_nothing_is_refused(graph: Artifact, pattern: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_layers(ir.load(graph.file("model.onnx")).graph, ("a/*", pattern))
    assert caught.value.message == f"--nodes-to-exclude {pattern!r} matches no node of the graph."
    assert caught.value.remedy == (
        "Names look like: words/Gather, a/MatMul, b/MatMul. `edge inspect <bundle>` lists them; * matches anything."
    )


def test_the_record_is_read_with_the_weights_that_the_graph_has_now(graph: Artifact, layers_of: Any) -> None:
    """Nodes, order and reasons of the graph that was looked at; weights and activations of the one that is given."""
    found = layers_of(graph, ["b/*"], ["a/*"])
    assert found.metadata == {"layers": 2, "left": 1}
    model = ir.load(graph.file("model.onnx"))
    product = next(node for node in model.graph if node.name == "a/MatMul")
    product.replace_input_with(1, add_constant(model.graph, "A.smoothed", 2 * weight(100, 48)))
    layers, left = read_layers(found, model.graph)
    assert [(layer.op, layer.node.name, layer.activation, layer.weight_name) for layer in layers] == [
        ("table", "words/Gather", "", "table"),
        ("linear", "a/MatMul", "h", "A.smoothed"),
    ]
    assert (layers[1].weight == 2).all()
    assert left == [LeftEntry(weight="B", op_type="MatMul", bytes=25600, reason="excluded by name")]


def branches(then_name: str, then_weight: str, else_name: str, else_weight: str) -> ir.Graph:
    """An If whose branches multiply with weights of their own."""
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]

    def body(name: str, read: str, factor: float) -> GraphProto:
        node = helper.make_node("MatMul", ["x", read], ["out"], name=name)
        return helper.make_graph([node], name, [], outputs, [numpy_helper.from_array(factor * weight(64, 64), read)])

    then_branch, else_branch = body(then_name, then_weight, 1.0), body(else_name, else_weight, 2.0)
    graph = helper.make_graph(
        [helper.make_node("If", ["flag"], ["y"], name="if", then_branch=then_branch, else_branch=else_branch)],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
    )
    return ir.from_proto(helper.make_model(graph)).graph


def test_weights_in_branches_are_stored() -> None:
    layers, left = find_layers(branches("a", "A", "b", "B"), ())
    found = {(layer.op, layer.node.name, layer.weight_name) for layer in layers}
    assert found == {("other", "a", "A"), ("other", "b", "B")}
    assert left == []


def test_a_weight_that_a_branch_and_the_graph_read_is_stored_once() -> None:
    """As the branch takes it: the codes of a static product at the top would be a second copy."""
    graph = branches("a", "A", "b", "B")
    shared = add_constant(graph, "shared", weight(64, 64))
    (branch,) = graph
    branch.attributes["then_branch"].as_graph()[0].replace_input_with(1, shared)
    top = ir.node("MatMul", [graph.inputs[0], shared], name="top")
    graph.insert_before(branch, top)
    layers, _ = find_layers(graph, ())
    assert {(layer.op, layer.node.name) for layer in layers if layer.weight_name == "shared"} == {
        ("other", "top"),
        ("other", "a"),
    }


@pytest.mark.parametrize("names", [("a", "A", "b", "A"), ("a", "A", "a", "B")])
def test_names_that_two_bodies_have_are_told(names: tuple[str, str, str, str]) -> None:
    layers, left = find_layers(branches(*names), ())
    assert layers == []
    assert {entry.reason for entry in left} == {"another body has a node or a weight of its name"}
