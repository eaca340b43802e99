"""What execution providers take of small graphs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from pipeline.checks.providers import compiled_coverage, provider_coverage, providers
from pipeline.core.report_types import ProviderCoverage

node = helper.make_node


def model(nodes: list[NodeProto], fixed: bool = True, **constants: np.ndarray) -> ModelProto:  # type: ignore[type-arg]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1 if fixed else "batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors))


def of(name: str, *models: ModelProto) -> ProviderCoverage:
    return next(found for found in provider_coverage(models, {}) if found.provider == name)


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


def test_what_falls_back_costs_copies_and_products() -> None:
    """x [1, 4] times 80 weights, Erf and Relu: NNAPI leaves Erf, so that [1, 20] floats go there and back."""
    nnapi, xnnpack = of("nnapi", FLOAT), of("xnnpack", FLOAT)
    assert (nnapi.products, nnapi.crossing_mb) == (1.0, 2 * 20 * 4 / 1e6)
    assert xnnpack.crossing_mb == 20 * 4 / 1e6
    erf = model([node("Erf", ["x"], ["e"]), node("MatMul", ["e", "w"], ["y"])], fixed=False, w=WEIGHT)
    assert of("nnapi", erf).products is None


def test_types_without_kernels_stay() -> None:
    """Codes of 16 bits are QNN's alone."""
    scales = {"s": np.float32(1).reshape(()), "z": np.uint16(0).reshape(())}
    wide = model(
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])], **scales
    )
    assert (of("qnn", wide).taken, of("xnnpack", wide).taken, of("nnapi", wide).taken) == (2, 0, 0)
    half = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1])
    graph = helper.make_graph([node("Relu", ["x"], ["y"])], "g", [half], [helper.make_tensor_value_info("y", 10, None)])
    assert (of("nnapi", helper.make_model(graph)).taken, of("coreml", helper.make_model(graph)).taken) == (0, 1)


def test_what_a_compiler_took_goes_before_its_list() -> None:
    listed = of("qnn", FLOAT)
    named = model([node("MatMul", ["x", "w"], ["a"], name="m"), node("Relu", ["a"], ["y"], name="r")], w=WEIGHT)
    found = compiled_coverage(listed, named, {"r"}, 1, "QNN for a SoC")
    assert (found.nodes, found.taken, found.parts, found.left) == (2, 1, 1, {"Relu": 1})
    assert (found.products, found.crossing_mb, found.compiled) == (1.0, 20 * 4 / 1e6, "QNN for a SoC")
