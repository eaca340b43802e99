"""Branches that shapes decide, as TorchScript writes them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import parser

from pipeline.trace.resolve_branches import resolve_branches

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'
SQUEEZE = """
    length = Shape <start = 2, end = 3> (x)
    one = Constant <value_ints = [1]> ()
    asked = Equal (length, one)
    flat = If (asked) <
        then_branch = t () => (float[b, 4] squeezed) {
            last = Constant <value_ints = [-1]> ()
            squeezed = Squeeze (x, last)
        },
        else_branch = e () => (kept) { kept = Identity (x) }
    >
"""


def model_of(text: str) -> ir.Model:
    return ir.from_proto(parser.parse_model(HEAD + text))


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph.all_nodes()]


def run(model: ir.Model, **feeds: np.ndarray) -> np.ndarray:
    data = ir.to_proto(model).SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def test_a_fixed_size_decides() -> None:
    model = resolve_branches(model_of(f"g (float[b, 4, 1] x) => (float[b, 4] flat) {{ {SQUEEZE} }}"))
    assert "If" not in operators(model)
    x = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    assert np.array_equal(run(model, x=x), x[:, :, 0])


def test_a_size_that_only_the_file_says_of_an_inner_value_does_not() -> None:
    """The traced sample had one frame; others may have more."""
    text = f"g (float[b, 4, n] given) => (float[b, m] flat) {{ x = Relu (given) {SQUEEZE} }}"
    model = model_of(text)
    next(node for node in model.graph if node.op_type == "Relu").outputs[0].shape = ir.Shape([1, 4, 1])
    model.graph.outputs[0].shape = None  # of either rank
    assert operators(resolve_branches(model)).count("If") == 1


def test_a_body_that_its_reader_refuses_is_not_taken() -> None:
    """The product behind takes rows of 4; what is not squeezed has rows of n."""
    text = f"""
    g (float[b, 4, n] x) => (float[d, b, 2] y) {{
        {SQUEEZE}
        axis = Constant <value_ints = [0]> ()
        sequence = Unsqueeze (flat, axis)
        all, y = GRU <hidden_size = 2> (sequence, W, R)
    }}
    """
    model = model_of(text)
    for name, inputs in (("W", 4), ("R", 2)):
        array = np.random.default_rng(inputs).normal(size=(1, 6, inputs)).astype(np.float32)
        reader = next(node for node in model.graph if node.op_type == "GRU")
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        model.graph.register_initializer(value)
        reader.replace_input_with(1 if name == "W" else 2, value)
    x = np.random.default_rng(0).normal(size=(3, 4, 1)).astype(np.float32)
    before = run(model, x=x)
    resolved = resolve_branches(model)
    assert "If" not in operators(resolved)
    assert np.array_equal(run(resolved, x=x), before)
    with pytest.raises(Exception, match="Squeeze"):  # as it was refused before, by the GRU
        run(resolved, x=np.zeros((3, 4, 2), np.float32))


def test_a_condition_of_the_input_stays() -> None:
    text = """
    g (float[n] x, bool[] asked) => (float[n] y) {
        y = If (asked) <
            then_branch = t () => (float[n] up) { up = Neg (x) },
            else_branch = e () => (float[n] down) { down = Abs (x) }
        >
    }
    """
    model = resolve_branches(model_of(text))
    assert operators(model).count("If") == 1
    x = np.array([-1, 2], np.float32)
    assert np.array_equal(run(model, x=x, asked=np.array(True)), -x)
    assert np.array_equal(run(model, x=x, asked=np.array(False)), abs(x))


def test_without_branches_the_model_is_left_alone() -> None:
    model = model_of("g (float[n] x) => (float[n] y) { y = Relu (x) }")
    assert resolve_branches(model) is model
