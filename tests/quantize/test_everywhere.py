"""Which tensors get codes where all operators run on them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.errors import UsageError
from pipeline.formats import NUMBER_FORMATS
from pipeline.numerics.affine import affine_unsigned
from pipeline.quantize.everywhere import code_range, region_everywhere
from pipeline.quantize.plan import TensorEntry
from pipeline.quantize.schemes import resolve_scheme
from pipeline.quantize.write import round_tensor


def graph() -> ir.Graph:
    """x -> Add -> Relu -> Reshape -> Mul by a constant -> y."""
    nodes = [
        helper.make_node("Add", ["x", "c"], ["a"], name="add"),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Reshape", ["r", "shape"], ["m"], name="reshape"),
        helper.make_node("Mul", ["m", "k"], ["y"], name="mul"),
    ]
    constants = {"c": np.array([-1, 3], np.float32), "k": np.float32(2), "shape": np.array([2, 1])}
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    between = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "arm"]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", [1, 2]), ("y", [2, 1]))
    )
    made = helper.make_graph(nodes, "g", [x], [y], tensors, value_info=between)
    return ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)).graph


def test_all_float_tensors_and_constants() -> None:
    """What a Relu reads has its range, since rounding clips; what is moved keeps the scale; integers have none."""
    region = region_everywhere(graph(), [], 8)
    assert region.tensors == {"x": "x", "a": "r", "r": "r", "m": "r", "y": "y"}
    assert region.constants == {"c": (-1.0, 3.0), "k": (2.0, 2.0)}
    assert region.observed == ("x", "r", "y")


def test_a_mask_takes_no_codes_from_scores() -> None:
    assert code_range(-10_000, 12) == (-100, 12)
    assert code_range(-10_000, -10_000) == (-100, 0)
    assert code_range(-300, 12) == (-300, 12)
    assert code_range(0, 0) == (0, 1)


def test_codes_of_sixteen_bits() -> None:
    made = graph()
    (x,) = made.inputs
    rounded = round_tensor(made, x, TensorEntry(tensor="x", scale=0.5, zero_point=300, bits=16))
    quantize = rounded.producer().inputs[0].producer()  # type: ignore[union-attr]
    assert quantize is not None
    assert quantize.op_type == "QuantizeLinear"
    zero = quantize.inputs[2].const_value.numpy()  # type: ignore[union-attr]
    assert (zero.dtype, int(zero)) == (np.uint16, 300)


def test_everywhere_asks_for_eight_bit_weights_and_static_ranges() -> None:
    assert resolve_scheme("w8a16-npu", {}, "t").everywhere == 16
    with pytest.raises(UsageError, match="rounds everywhere, with weights of 4 bits, embeddings of 8 and static"):
        resolve_scheme({"base": "w8a8-npu", "weights": 4}, {}, "t")
    with pytest.raises(UsageError, match="and dynamic activations"):
        resolve_scheme({"base": "w8a8-npu", "activations": "dynamic"}, {}, "t")
    assert "int8-npu" in NUMBER_FORMATS


def test_saturating_operators_have_the_scale_that_the_npu_computes_with() -> None:
    """1 / 65536 from 0, and 1 / 32768 around 32768."""
    nodes = [helper.make_node(op, ["x"], [name]) for op, name in (("Sigmoid", "s"), ("Tanh", "t"))]
    x, *outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xst")
    made = helper.make_graph(nodes, "g", [x], outputs)
    region = region_everywhere(ir.from_proto(helper.make_model(made)).graph, [], 16)
    assert region.saturating == {"s": (0.0, 1 - 2.0**-16), "t": (-1.0, 1 - 2.0**-15)}
    assert affine_unsigned(*region.saturating["s"], 16) == (np.float32(2.0**-16), 0)
    assert affine_unsigned(*region.saturating["t"], 16) == (np.float32(2.0**-15), 32768)
