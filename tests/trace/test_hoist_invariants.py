"""Weights that loops carry round, beside ONNX Runtime's answers to the graph as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from pipeline.trace.hoist_invariants import hoist_invariants

WEIGHT = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32) / 2
X = np.random.default_rng(1).normal(size=(1, 3)).astype(np.float32)
KERAS = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[1, 3] x) => (float[1, 3] y, float[3, 3] beside) <float[3, 3] w> {
    turns = Constant<value = int64 {4}>()
    y, kept = Loop (turns, , x, w) <body = body (int64 turn, bool go, float[1, 3] state, float[3, 3] carried)
        => (bool more, float[1, 3] next, float[3, 3] handed) {
        more = Identity (go)
        product = MatMul (state, carried)
        next = Tanh (product)
        between = Identity (carried)
        handed = Identity (between)
    }>
    beside = Neg (kept)
}
"""
NESTED = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[1, 3] x) => (float[1, 3] y) <float[3, 3] w> {
    turns = Constant<value = int64 {2}>()
    y, kept = Loop (turns, , x, w) <body = outer (int64 turn, bool go, float[1, 3] state, float[3, 3] carried)
        => (bool more, float[1, 3] next, float[3, 3] handed) {
        more = Identity (go)
        often = Constant<value = int64 {3}>()
        next, handed = Loop (often, , state, carried) <body = inner (int64 t, bool g, float[1, 3] s, float[3, 3] c)
            => (bool m, float[1, 3] n, c) {
            m = Identity (g)
            p = MatMul (s, c)
            n = Tanh (p)
        }>
    }>
}
"""
SCAN = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[1, 3] x) => (float[1, 3] y, float[2, 1, 3] all) <float[3, 3] w, float[2, 1, 3] steps> {
    y, kept, all = Scan <num_scan_inputs = 1, body = body (float[1, 3] state, float[3, 3] carried, float[1, 3] step)
        => (float[1, 3] next, float[3, 3] handed, float[1, 3] each) {
        product = MatMul (state, carried)
        next = Add (product, step)
        each = Identity (next)
        handed = Identity (carried)
    }> (x, w, steps)
}
"""


def _model(text: str) -> ir.Model:
    proto = onnx.parser.parse_model(text)
    steps = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    for name, array in (("w", WEIGHT), ("steps", steps)):
        for value in [value for value in proto.graph.value_info if value.name == name]:
            proto.graph.value_info.remove(value)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def _outputs(model: ir.Model) -> list[NDArray[Any]]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": X}))


def _read_in_bodies(model: ir.Model) -> int:
    """Products of bodies that read the weight itself."""
    inner = [node for node in model.graph.all_nodes() if node.graph is not model.graph and node.op_type == "MatMul"]
    return sum(node.inputs[1] is model.graph.initializers["w"] for node in inner)


@pytest.mark.parametrize("text", [KERAS, NESTED, SCAN], ids=["keras", "nested", "scan"])
def test_bodies_read_the_weight_and_the_outputs_stay(text: str) -> None:
    model = _model(text)
    before = _outputs(model)
    assert _read_in_bodies(model) == 0
    hoist_invariants(model.graph)
    assert _read_in_bodies(model) == 1
    for loop in (node for node in model.graph.all_nodes() if node.op_type in ("Loop", "Scan")):
        assert model.graph.initializers["w"] not in loop.inputs
    for one, other in zip(before, _outputs(model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_what_the_loop_gives_as_an_output_of_the_graph_stays() -> None:
    text = KERAS.replace("beside)", "kept)").replace("    beside = Neg (kept)\n", "")
    model = _model(text)
    before = _outputs(model)
    hoist_invariants(model.graph)
    assert _read_in_bodies(model) == 0
    for one, other in zip(before, _outputs(model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_state_that_changes_stays() -> None:
    model = _model(KERAS.replace("between = Identity (carried)", "between = Neg (carried)"))
    before = _outputs(model)
    hoist_invariants(model.graph)
    assert _read_in_bodies(model) == 0
    for one, other in zip(before, _outputs(model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
