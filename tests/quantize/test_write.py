"""Every method against a numpy simulation of it, in ONNX Runtime, and against ONNX's reference implementation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import load_file

from pipeline.config.target import Runtime
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.types import Scheme
from pipeline.formats.format import Entry
from pipeline.numerics.blocks import Bits, Grid, dequantize_blocks, unpack_codes
from pipeline.quantize import calibrate, quantize
from pipeline.quantize import write as writing
from pipeline.quantize.plan import QuantizationPlan
from pipeline.quantize.shards import CODES
from pipeline.runtime.session import make_session

Arrays = dict[str, NDArray[Any]]
Quantized = Callable[[Scheme], Artifact]

DYNAMIC = Scheme(name="t", weights=8, activations="dynamic")
STATIC = Scheme(name="t", weights=8, activations="static")
METHODS = {
    "dynamic": DYNAMIC,
    "dynamic-per-tensor": DYNAMIC.model_copy(update={"per_channel": False}),
    "static": STATIC,
    "static-per-tensor": STATIC.model_copy(update={"per_channel": False}),
    **{f"block{size}": Scheme(name="t", weights=4, block_size=size) for size in (16, 32, 128)},
    "table8": Scheme(name="t", embeddings=8),
    **{f"half-scales{size}": Scheme(name="t", weights=4, block_size=size, scale_bits=16) for size in (16, 64)},
    **{f"block2-{size}": Scheme(name="t", weights=2, block_size=size) for size in (64, 128)},
    **{
        f"zero-points{bits}": Scheme(name="t", weights=bits, block_size=64, symmetric=False, scale_bits=16)
        for bits in (2, 4, 8)
    },
    "zero-points-gptq": Scheme(name="t", weights=4, embeddings=4, symmetric=False, rounding="gptq"),
    "block2-gptq": Scheme(name="t", weights=2, embeddings=4, block_size=64, symmetric=False, rounding="gptq"),
    "descent": Scheme(name="t", weights=4, symmetric=False, rounding="descent"),
    "table2": Scheme(name="t", embeddings=2, symmetric=False, embedding_block_size=64),
    "block8": Scheme(name="t", weights=8),
    "block8-half-scales": Scheme(name="t", weights=8, scale_bits=16),
    "half": Scheme(name="t", weights=16),
    "table16": Scheme(name="t", embeddings=16),
    **{f"table4-{size}": Scheme(name="t", embeddings=4, embedding_block_size=size) for size in (16, 32, 128)},
    "table4-half-scales": Scheme(name="t", embeddings=4, scale_bits=16),
    "all8": DYNAMIC.model_copy(update={"embeddings": 8}),
    "all4": Scheme(name="t", weights=4, embeddings=4),
    "gptq": Scheme(name="t", weights=4, embeddings=4, scale_bits=16, rounding="gptq"),
    **{f"widened{size}": Scheme(name="t", weights=4, activations="dynamic", block_size=size) for size in (32, 128)},
    "widened-gptq": Scheme(name="t", weights=4, activations="dynamic", embeddings=4, scale_bits=16, rounding="gptq"),
    **{
        f"widened-static{size}": Scheme(name="t", weights=4, activations="static", block_size=size)
        for size in (32, 128)
    },
    "widened-static-gptq": Scheme(name="t", weights=4, activations="static", scale_bits=16, rounding="gptq"),
    "all16": Scheme(name="t", weights=16, embeddings=16),
}


@pytest.fixture
def plan_of(graph: Artifact, samples: Artifact, run_stage: Callable[..., Artifact]) -> Quantized:
    """The artifact of the stage `quantize`."""

    def plan(scheme: Scheme) -> Artifact:
        inputs = {"graph": graph}
        if scheme.activations == "static":
            inputs["ranges"] = run_stage(calibrate.ranges, scheme, graph=graph, samples=samples)
        if scheme.rounding != "nearest":
            inputs["hessians"] = run_stage(calibrate.hessians, scheme, graph=graph, samples=samples)
        return run_stage(quantize.run, scheme, **inputs)

    return plan


@pytest.fixture
def written(graph: Artifact, plan_of: Quantized, run_stage: Callable[..., Artifact]) -> Quantized:
    """The artifact of the stage `write`."""
    return lambda scheme: run_stage(writing.run, None, graph=graph, plan=plan_of(scheme))


def round_weight(weight: NDArray[np.float32], scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """8-bit codes of which two neighbours of one sign take 127 steps, and their scales, written out once more."""
    first, second = weight[::2], weight[1::2]
    peaks = np.where(first * second > 0, np.abs(first + second), np.maximum(np.abs(first), np.abs(second)))
    scale = peaks.max(axis=0 if scheme.per_channel else None, keepdims=True) / np.float32(127)
    return np.rint(weight / scale).astype(np.float64), scale


def round_activation(x: NDArray[np.float32], low: float, high: float) -> tuple[NDArray[np.float64], float]:
    """Codes less their zero point, and the scale, of uint8 over [low, high] and 0."""
    scale = np.float32((max(high, 0) - min(low, 0)) / 255)
    zero = np.rint(np.float32(-min(low, 0)) / scale)
    return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.float64) - zero, float(scale)


def rows_of(table: NDArray[np.float32], ids: NDArray[np.int64], scheme: Scheme, arrays: Arrays) -> NDArray[np.float32]:
    if scheme.embeddings == 32:
        return table[ids]
    if scheme.embeddings == 16:
        return table.astype(np.float16).astype(np.float32)[ids]
    if scheme.embeddings == 8:
        scale = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
        return (np.rint(table / scale) * scale)[ids]
    rows = from_blocks("table", table.shape, scheme.embedding_block_size, scheme.embeddings, arrays)[ids]
    return rows if scheme.scale_bits == 32 else rows.astype(np.float16).astype(np.float32)


def from_blocks(name: str, shape: tuple[int, ...], size: int, bits: Bits, arrays: Arrays) -> NDArray[np.float32]:
    """The stored codes as floats; that they are good codes is what test_blocks checks."""
    codes, scales = arrays[f"{name}.codes"], arrays[f"{name}.scales"].astype(np.float32)
    flat = unpack_codes(codes, bits).reshape(shape[0], -1)
    padded = np.pad(flat, ((0, 0), (0, -flat.shape[1] % size)))
    zero = np.full(scales.shape, 2 ** (bits - 1), np.uint8)
    if f"{name}.zero_points" in arrays:
        zero = unpack_codes(arrays[f"{name}.zero_points"], bits)[:, : scales.shape[1]]
    return dequantize_blocks(padded.reshape(shape[0], -1, size), Grid(scales, zero), shape[1])


def widen(name: str, shape: tuple[int, int], scheme: Scheme, arrays: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
    """8-bit codes of the stored 4-bit ones, and their scales; float16 divides in float16."""
    codes = unpack_codes(arrays[f"{name}.codes"], 4)[: shape[0] * shape[1]].reshape(shape).astype(np.int8)
    signed = np.where(codes > 7, codes - 16, codes)
    divisors = np.repeat(arrays[f"{name}.divisors"], scheme.block_size, axis=0)[: shape[0]]
    return np.rint(signed.astype(divisors.dtype) / divisors).astype(np.float64), arrays[f"{name}.scales"]


def product(h: NDArray[np.float32], name: str, weight: NDArray[np.float32], scheme: Scheme, arrays: Arrays) -> Any:
    if scheme.weights == 32:
        return h @ weight
    if scheme.weights == 16:
        return h @ weight.astype(np.float16).astype(np.float32)
    if scheme.activations == "float":
        return h @ from_blocks(name, weight.T.shape, scheme.block_size, scheme.weights, arrays).T
    codes, scale = widen(name, weight.shape, scheme, arrays) if scheme.weights == 4 else round_weight(weight, scheme)
    x, x_scale = round_activation(h, float(h.min()), float(h.max()))
    return (x @ codes) * x_scale * scale


def simulate(constants: Arrays, ids: NDArray[np.int64], scheme: Scheme, arrays: Arrays) -> list[Any]:
    h = rows_of(constants["table"], ids, scheme, arrays)
    return [product(h, name, constants[name], scheme, arrays) for name in ("A", "B")]


def sqnr(reference: NDArray[Any], actual: NDArray[Any]) -> float:
    """Signal over quantization noise, dB."""
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - actual).sum()))


def operators(artifact: Artifact, folder: Path) -> list[str]:
    """Of the graph that ONNX Runtime really runs."""
    optimized = folder / "optimized.onnx"
    make_session(artifact.file("model.onnx"), Runtime(), optimized_model=optimized)
    return [node.op_type for node in onnx.load(optimized, load_external_data=False).graph.node]


@pytest.mark.parametrize("method", METHODS)
def test_onnx_runtime_computes_the_simulation(
    method: str,
    constants: Arrays,
    ids: NDArray[np.int64],
    plan_of: Quantized,
    graph: Artifact,
    run_stage: Callable[..., Artifact],
    run_model: Callable[..., list[NDArray[Any]]],
) -> None:
    scheme = METHODS[method]
    plan = plan_of(scheme)
    written = run_stage(writing.run, None, graph=graph, plan=plan)
    expected = simulate(constants, ids, scheme, load_file(plan.file(CODES)))
    for actual, wanted in zip(run_model(written, ids=ids), expected, strict=True):
        assert actual.shape == wanted.shape
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["dynamic", "dynamic-per-tensor", "static", "static-per-tensor", "table8", "all8"])
def test_onnx_runtime_agrees_with_the_reference_evaluator(
    method: str, ids: NDArray[np.int64], written: Quantized, run_model: Callable[..., list[NDArray[Any]]]
) -> None:
    artifact = written(METHODS[method])
    expected = ReferenceEvaluator(onnx.load(artifact.file("model.onnx"))).run(None, {"ids": ids})
    for actual, wanted in zip(run_model(artifact, ids=ids), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "bound"),
    [
        ("dynamic", 35),  # weights of 2.3 sigma in 63 steps: 39 dB; 8-bit activations of 4 sigma: 40 dB
        ("dynamic-per-tensor", 31),
        ("static", 33),
        ("static-per-tensor", 31),
        ("block16", 21),
        ("block32", 20),
        ("block128", 18),
        ("half-scales64", 19),
        ("block8", 45),
        ("half", 68),
        ("table16", 68),
        ("table8", 40),
        ("table4-32", 20),
        ("all8", 32),
        ("all4", 17),
        ("gptq", 17),
        ("widened32", 19),
        ("widened128", 17),
        ("widened-gptq", 16),
        ("widened-static32", 19),
    ],
)
def test_noise_against_float_is_what_the_bits_allow(
    method: str,
    bound: float,
    graph: Artifact,
    ids: NDArray[np.int64],
    written: Quantized,
    run_model: Callable[..., list[NDArray[Any]]],
) -> None:
    floats, rounded = run_model(graph, ids=ids), run_model(written(METHODS[method]), ids=ids)
    for reference, actual in zip(floats, rounded, strict=True):
        assert bound < sqnr(reference, actual) < bound + 8


def test_int8_arithmetic_on_blocks_costs_little(
    graph: Artifact, ids: NDArray[np.int64], written: Quantized, run_model: Callable[..., list[NDArray[Any]]]
) -> None:
    scheme = METHODS["block32"]
    exact = run_model(written(scheme), ids=ids)
    fast = run_model(written(scheme.model_copy(update={"accuracy_level": 4})), ids=ids)
    for reference, actual in zip(exact, fast, strict=True):
        assert sqnr(reference, actual) > 35


@pytest.mark.parametrize("method", METHODS)
def test_same_inputs_give_the_same_bytes(method: str, written: Quantized) -> None:
    first, second = written(METHODS[method]), written(METHODS[method])
    assert {file.name for file in first.path.iterdir()} == {"graphs.json", "model.onnx", "model.onnx.data"}
    for file in first.path.iterdir():
        assert file.read_bytes() == second.file(file.name).read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_the_graph_is_valid_and_keeps_its_outputs(method: str, written: Quantized) -> None:
    artifact = written(METHODS[method])
    model = onnx.load(artifact.file("model.onnx"))
    onnx.checker.check_model(model)
    assert [output.name for output in model.graph.output] == ["a", "b"]
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_reduced_codes_cannot_saturate_any_instruction_set(plan_of: Quantized) -> None:
    """x86 without VNNI adds two products of uint8 and int8 in 16 bits."""
    codes = load_file(plan_of(DYNAMIC).file(CODES))
    for name in ("A.codes", "B.codes"):
        pairs = codes[name].astype(int).reshape(-1, 2, codes[name].shape[1])
        assert 63 < np.abs(pairs).max() <= 127
        assert 255 * np.maximum(pairs, 0).sum(1).max() < 2**15
        assert 255 * np.minimum(pairs, 0).sum(1).min() >= -(2**15)


def test_widened_codes_cannot_saturate_either(written: Quantized, tmp_path: Path) -> None:
    """Those that ONNX Runtime makes when it loads the model."""
    folder = shutil.copytree(written(METHODS["widened-gptq"]).path, tmp_path / "copy")
    make_session(folder / "model.onnx", Runtime(), optimized_model=folder / "optimized.onnx")
    constants = onnx.load(folder / "optimized.onnx").graph.initializer
    codes = [numpy_helper.to_array(entry) for entry in constants if entry.data_type == onnx.TensorProto.INT8]
    assert sorted(array.shape for array in codes) == [(100, 48), (100, 64)]
    assert all(55 <= np.abs(array.astype(int)).max() <= 63 for array in codes)  # of -7 or -8, times 63 / 8


def test_full_range_codes_reach_127(plan_of: Quantized) -> None:
    codes = load_file(plan_of(DYNAMIC.model_copy(update={"reduce_range": False})).file(CODES))
    assert np.abs(codes["A.codes"].astype(int)).max() == 127


@pytest.mark.parametrize("method", ["dynamic", "dynamic-per-tensor"])
def test_dynamic_products_share_one_quantization_and_are_fused(method: str, written: Quantized, tmp_path: Path) -> None:
    found = operators(written(METHODS[method]), tmp_path)
    assert sorted(found) == ["DynamicQuantizeLinear", "Gather", "MatMulIntegerToFloat", "MatMulIntegerToFloat"]


def test_a_dynamic_product_alone_is_one_kernel(written: Quantized, tmp_path: Path) -> None:
    scheme = DYNAMIC.model_copy(update={"nodes_to_exclude": ("b/*",)})
    assert sorted(operators(written(scheme), tmp_path)) == ["DynamicQuantizeMatMul", "Gather", "MatMul"]


@pytest.mark.parametrize("method", ["static", "static-per-tensor", "widened-static32", "widened-static-gptq"])
def test_static_products_share_one_quantization_and_are_fused(method: str, written: Quantized, tmp_path: Path) -> None:
    found = operators(written(METHODS[method]), tmp_path)
    assert found.count("MatMulIntegerToFloat") == 2
    assert found.count("QuantizeLinear") <= 1
    assert "DequantizeLinear" not in found
    assert "MatMul" not in found


@pytest.mark.parametrize("method", ["static", "static-per-tensor", "widened-static32"])
def test_a_static_product_of_matrices_with_a_bias_is_multiplied_in_integers(
    method: str,
    constants: Arrays,
    make_graph: Callable[..., Artifact],
    make_samples: Callable[..., Artifact],
    run_stage: Callable[..., Artifact],
    run_model: Callable[..., list[NDArray[Any]]],
    tmp_path: Path,
) -> None:
    """ONNX Runtime would make a Gemm of the two, and widen the weight of its QDQ form at every run. The other product
    of the same activation has no bias."""
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["product"], name="a/MatMul"),
        helper.make_node("Add", ["product", "bias"], ["a"], name="a/Add"),
        helper.make_node("MatMul", ["x", "B"], ["b"], name="b/MatMul"),
    ]
    weights = {"A": constants["A"], "B": constants["B"], "bias": np.arange(48, dtype=np.float32)}
    graph = make_graph(nodes, weights, {"x": ["batch", 100]}, {"a": ["batch", 48], "b": ["batch", 64]})
    x = constants["table"]
    scheme = METHODS[method]
    samples = make_samples([{"x": row[None]} for row in x])
    ranges = run_stage(calibrate.ranges, scheme, graph=graph, samples=samples)
    plan = run_stage(quantize.run, scheme, graph=graph, ranges=ranges)
    artifact = run_stage(writing.run, None, graph=graph, plan=plan)
    found = operators(artifact, tmp_path)
    assert sorted(found) == ["Add", "Cast", "MatMulInteger", "MatMulIntegerToFloat", "Mul", "QuantizeLinear"]
    for reference, actual in zip(run_model(graph, x=x), run_model(artifact, x=x), strict=True):
        assert sqnr(reference, actual) > (18 if scheme.weights == 4 else 31)


def test_a_classifier_takes_the_codes_of_the_convolutions_before(
    constants: Arrays,
    make_graph: Callable[..., Artifact],
    make_samples: Callable[..., Artifact],
    run_stage: Callable[..., Artifact],
    run_model: Callable[..., list[NDArray[Any]]],
    tmp_path: Path,
) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], name="c/Conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["h"], name="flatten"),
        helper.make_node("MatMul", ["h", "A"], ["product"], name="a/MatMul"),
        helper.make_node("Add", ["product", "bias"], ["a"], name="a/Add"),
    ]
    draw = np.random.default_rng(5).normal
    weights = {"kernel": draw(scale=0.1, size=(100, 256, 1, 1)), "A": constants["A"], "bias": np.arange(48)}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    graph = make_graph(nodes, weights, {"x": ["batch", 256, 6, 6]}, {"a": ["batch", 48]})
    x = draw(size=(20, 256, 6, 6)).astype(np.float32)
    ranges = run_stage(calibrate.ranges, STATIC, graph=graph, samples=make_samples([{"x": row[None]} for row in x]))
    artifact = run_stage(
        writing.run, None, graph=graph, plan=run_stage(quantize.run, STATIC, graph=graph, ranges=ranges)
    )
    found = operators(artifact, tmp_path)
    assert "MatMulInteger" in found
    assert not {"Gemm", "MatMul"} & set(found)
    (reference,), (actual,) = run_model(graph, x=x), run_model(artifact, x=x)
    assert sqnr(reference, actual) > 31


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("all4", ["GatherBlockQuantized", "MatMulNBits", "MatMulNBits"]),
        ("gptq", ["Cast", "GatherBlockQuantized", "MatMulNBits", "MatMulNBits"]),  # of the rows that were gathered
        ("block8-half-scales", ["Gather", "MatMulNBits", "MatMulNBits"]),
        ("all16", ["Cast", "Gather", "MatMul", "MatMul"]),
        ("widened32", ["DynamicQuantizeLinear", "Gather", "MatMulIntegerToFloat", "MatMulIntegerToFloat"]),
    ],
)
def test_constants_are_cast_when_the_model_is_loaded(
    method: str, expected: list[str], written: Quantized, tmp_path: Path
) -> None:
    """No Cast of a scale or a weight is left in the graph that runs."""
    assert sorted(operators(written(METHODS[method]), tmp_path)) == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("dynamic", ["Cast", "DynamicQuantizeLinear", "Gather", "MatMulInteger", "Mul"]),
        ("static", ["DequantizeLinear", "Gather", "MatMul", "QuantizeLinear"]),
        ("table8", ["Cast", "Gather", "MatMul", "Mul"]),
        ("all4", ["GatherBlockQuantized", "MatMulNBits"]),
    ],
)
def test_facts_name_the_operators(method: str, expected: list[str], written: Quantized) -> None:
    assert written(METHODS[method]).metadata == {"operators": expected}


def test_float_weights_are_gone(written: Quantized) -> None:
    model = onnx.load(written(METHODS["all8"]).file("model.onnx"))
    assert not {"table", "A", "B"} & {constant.name for constant in model.graph.initializer}


def test_per_tensor_scales_are_scalars(written: Quantized) -> None:
    """QuantizeLinear and DequantizeLinear: `for per-tensor quantization the scale is a scalar`."""
    model = onnx.load(written(METHODS["static-per-tensor"]).file("model.onnx"))
    shapes = {constant.name: list(constant.dims) for constant in model.graph.initializer}
    assert shapes["a/MatMul.activation_scale"] == shapes["a/MatMul.activation_zero_point"] == shapes["A.scale"] == []


def test_plan_of_another_graph_is_refused(graph: Artifact) -> None:
    plan = QuantizationPlan(
        linears=(Entry(node="z/MatMul", weight="Z", op="linear", format="int8-channel", shape=(1, 1)),)
    )
    with pytest.raises(StageError) as caught:
        writing.write(ir.load(graph.file("model.onnx")), plan, {})
    assert caught.value.message == "The quantization plan names the node 'z/MatMul', which the graph does not have."
