"""What execution providers take of small graphs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from pipeline.checks.providers import ProviderCoverage, provider_coverage, providers

node = helper.make_node


def model(nodes: list[NodeProto], fixed: bool = True, **constants: np.ndarray) -> ModelProto:  # type: ignore[type-arg]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1 if fixed else "batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors))


def of(name: str, *models: ModelProto) -> ProviderCoverage:
    return next(found for found in provider_coverage(models) if found.provider == name)


WEIGHT = np.ones((4, 20), np.float32)
FLOAT = model([node("MatMul", ["x", "w"], ["a"]), node("Erf", ["a"], ["b"]), node("Relu", ["b"], ["y"])], w=WEIGHT)
SCALES = {"s": np.float32(1).reshape(()), "z": np.uint8(0).reshape(())}


def rounded(op_type: str) -> ModelProto:
    """An operator between roundings, on codes of 80 weights."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["c", "s", "z"], ["w"]),
        node(op_type, ["d", "w"], ["a"]),
        node("QuantizeLinear", ["a", "s", "z"], ["r"]),
        node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    return model(nodes, c=np.ones((4, 20), np.uint8), **SCALES)


def test_a_float_graph_is_taken_in_parts() -> None:
    """CoreML lists all three; NNAPI no Erf, which parts the others."""
    assert (of("coreml", FLOAT).taken, of("coreml", FLOAT).parts, of("coreml", FLOAT).left) == (3, 1, {})
    nnapi = of("nnapi", FLOAT)
    assert (nnapi.nodes, nnapi.taken, nnapi.parts, nnapi.left, nnapi.weights) == (3, 2, 2, {"Erf": 1}, 1.0)
    xnnpack = of("xnnpack", FLOAT)
    assert (xnnpack.taken, xnnpack.weights, xnnpack.left) == (1, 1.0, {"Erf": 1, "Relu": 1})


def test_between_roundings_a_provider_must_have_kernels_for_codes() -> None:
    convolution, product = rounded("Conv"), rounded("MatMul")
    assert of("xnnpack", convolution).taken == 6
    assert (of("xnnpack", product).left, of("xnnpack", product).weights) == ({"MatMul": 1}, 0.0)
    assert of("qnn", product).taken == 6
    assert (of("coreml", convolution).taken, of("coreml", convolution).weights) == (0, 0.0)
    assert of("coreml", convolution).needs == "a float model: operators between roundings stay on the CPU"
    assert of("coreml", FLOAT).needs == ""


def test_fixed_shapes_are_asked_for_where_they_are_missing() -> None:
    dynamic = model([node("Relu", ["x"], ["y"])], fixed=False)
    assert of("qnn", dynamic).needs.startswith("fixed shapes")
    assert of("qnn", FLOAT).needs == ""


def test_operators_of_other_domains_are_not_mistaken_for_standard_ones() -> None:
    own = model([node("Relu", ["x"], ["y"], domain="my.ops")])
    gelu = model([node("Gelu", ["x"], ["y"], domain="com.microsoft")])
    assert of("qnn", own).left == {"Relu": 1}
    assert of("qnn", gelu).taken == 1


def test_every_list_has_its_source() -> None:
    assert [provider.name for provider in providers()] == ["qnn", "xnnpack", "nnapi", "coreml", "webgpu"]
    assert all("ONNX Runtime" in provider.source or "onnxruntime" in provider.source for provider in providers())
