"""Static INT8 convolutions against a numpy simulation, ONNX's reference implementation and ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import load_file

from pipeline.config.target import Runtime
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.types import Scheme
from pipeline.numerics.affine import pair_floor
from pipeline.quantize import calibrate, quantize
from pipeline.quantize import write as writing
from pipeline.quantize.calibrate import RANGES
from pipeline.quantize.plan import PLAN
from pipeline.quantize.shards import CODES
from pipeline.runtime.session import make_session

Make = Callable[..., Artifact]
Arrays = dict[str, NDArray[Any]]
STATIC = Scheme(name="t", weights=8, activations="static")


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def rows() -> list[Arrays]:
    return [{"x": normal(seed, 1, 4, 12, 12)} for seed in range(6)]


@pytest.fixture
def network(make_graph: Make) -> Artifact:
    """Strided, depthwise, residual, pooled, concatenated, and a head: y = mean(conv(...))."""
    weights = {
        "stem.w": normal(10, 32, 4, 3, 3) / 6,
        "stem.b": normal(11, 32),
        "deep.w": normal(12, 32, 1, 3, 3) / 3,
        "deep.b": normal(13, 32),
        "left.w": normal(14, 24, 32, 1, 1) / 6,
        "right.w": normal(15, 96, 32, 3, 3) / 17,
        "right.b": normal(16, 96),
        "head.w": normal(17, 10, 120, 1, 1) / 11,
        "axes": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "stem.w", "stem.b"], ["s"], name="stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["s"], ["sr"], name="sr"),
        helper.make_node("Conv", ["sr", "deep.w", "deep.b"], ["d"], name="deep", pads=[1, 1, 1, 1], group=32),
        helper.make_node("Add", ["sr", "d"], ["a"], name="add"),
        helper.make_node("Relu", ["a"], ["ar"], name="ar"),
        helper.make_node("MaxPool", ["ar"], ["m"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["m", "left.w"], ["l"], name="left"),
        helper.make_node("Conv", ["m", "right.w", "right.b"], ["r"], name="right", pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["l", "r"], ["c"], name="join", axis=1),
        helper.make_node("Conv", ["c", "head.w"], ["h"], name="head"),
        helper.make_node("ReduceMean", ["h", "axes"], ["y"], name="mean", keepdims=0),
    ]
    return make_graph(nodes, weights, {"x": ["batch", 4, 12, 12]}, {"y": ["batch", 10]})


@pytest.fixture
def build(run_stage: Make, make_samples: Make) -> Callable[..., tuple[Artifact, Artifact]]:
    """(plan, written model) of a graph that was calibrated on rows."""

    def make(graph: Artifact, rows: list[Arrays], scheme: Scheme = STATIC) -> tuple[Artifact, Artifact]:
        ranges = run_stage(calibrate.ranges, scheme, graph=graph, samples=make_samples(rows))
        plan = run_stage(quantize.run, scheme, graph=graph, ranges=ranges)
        return plan, run_stage(writing.run, None, graph=graph, plan=plan)

    return make


def operators(artifact: Artifact, folder: Path) -> list[str]:
    optimized = folder / "optimized.onnx"
    make_session(artifact.file("model.onnx"), Runtime(), optimized_model=optimized)
    return [node.op_type for node in onnx.load(optimized, load_external_data=False).graph.node]


def sqnr(reference: NDArray[Any], actual: NDArray[Any]) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - actual).sum()))


def test_one_convolution_is_what_integers_give(
    make_graph: Make, run_stage: Make, make_samples: Make, run_model: Callable[..., Any]
) -> None:
    """1x1, so that numpy can multiply it: codes, sums in int32, one rounding at the end."""
    weight, bias = normal(1, 192, 192, 1) / 8, normal(2, 192)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="n")
    graph = make_graph([node], {"w": weight, "b": bias}, {"x": ["batch", 192, 5]}, {"y": ["batch", 192, 5]})
    x = normal(3, 1, 192, 5)
    scheme = STATIC.model_copy(update={"bias_correction": False})
    ranges = run_stage(calibrate.ranges, scheme, graph=graph, samples=make_samples([{"x": x}]))
    plan = run_stage(quantize.run, scheme, graph=graph, ranges=ranges)
    (actual,) = run_model(run_stage(writing.run, None, graph=graph, plan=plan), x=x)

    found = load_file(ranges.file(RANGES))
    step = {name: (max(high, 0) - min(low, 0)) / np.float32(255) for name, (low, high) in found.items()}
    zero = {name: np.rint(-min(low, 0) / step[name]) for name, (low, _) in found.items()}
    scale = np.maximum(np.abs(weight).max(axis=(1, 2)) / np.float32(127), pair_floor(weight[:, :, 0].T))
    codes = np.rint(weight[:, :, 0] / scale[:, None])
    inputs = np.clip(np.rint(x[0] / step["x"]) + zero["x"], 0, 255) - zero["x"]
    sums = codes @ inputs + np.rint(bias / (step["x"] * scale))[:, None]
    exact = sums * (step["x"] * scale)[:, None] / step["y"]
    expected = (np.clip(np.rint(exact + zero["y"]), 0, 255) - zero["y"]) * step["y"]
    off = np.abs(actual[0] - expected) / step["y"]  # a tie may round either way
    assert off.max() < 1.01
    assert (off > 0.01).mean() < 0.01


def test_network_agrees_with_the_reference_evaluator(
    network: Artifact, rows: list[Arrays], build: Callable[..., Any], run_model: Callable[..., Any]
) -> None:
    _, written = build(network, rows)
    model = onnx.load(written.file("model.onnx"))
    onnx.checker.check_model(model)
    x = np.concatenate([row["x"] for row in rows])
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    (actual,) = run_model(written, x=x)
    assert sqnr(expected, actual) > 35  # sums of float products round otherwise than integers at ties
    assert 20 < sqnr(run_model(network, x=x)[0], actual) < 45


def test_network_runs_in_integers(
    network: Artifact, rows: list[Arrays], build: Callable[..., Any], tmp_path: Path
) -> None:
    """One crossing in and one out; the mean at the end stays in float."""
    plan, written = build(network, rows)
    found = operators(written, tmp_path)
    assert found.count("QLinearConv") == 5
    assert {"QLinearAdd", "QLinearConcat"} <= set(found)
    assert (found.count("QuantizeLinear"), found.count("DequantizeLinear")) == (1, 1)
    assert not {"Conv", "FusedConv", "Relu", "Add", "Concat"} & set(found)
    assert (plan.metadata["convolutions"], plan.metadata["left_in_float"]) == (5, [])


def test_movers_share_their_sources_codes(network: Artifact, rows: list[Arrays], build: Callable[..., Any]) -> None:
    plan, _ = build(network, rows)
    tensors = {entry["tensor"]: entry for entry in json.loads(plan.file(PLAN).read_text())["tensors"]}
    assert set(tensors) == {"x", "sr", "d", "ar", "m", "l", "r", "c", "h"}
    assert {**tensors["m"], "tensor": "ar"} == tensors["ar"]
    assert tensors["sr"]["zero_point"] == 0  # so that the rounding clips what the Relu would


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("reduce_range", "least", "most"), [(True, 120, 128), (False, 140, 254)])
def test_scheme_decides_the_codes_of_weights(
    per_channel: bool, reduce_range: bool, least: int, most: int, network: Artifact, rows: list[Arrays], build: Any
) -> None:
    scheme = STATIC.model_copy(update={"per_channel": per_channel, "reduce_range": reduce_range})
    arrays = load_file(build(network, rows, scheme)[0].file(CODES))
    codes = arrays["right.w.codes"].astype(int)
    pairs = np.moveaxis(codes, 1, -1).reshape(len(codes), -1, 2)  # neighbouring channels of one place of the kernel
    sums = max(np.maximum(pairs, 0).sum(-1).max(), -np.minimum(pairs, 0).sum(-1).min())
    assert least < sums <= most
    assert arrays["right.w.scales"].shape == ((96,) if per_channel else (1,))
    assert (arrays["right.bias.codes"].dtype, arrays["right.bias.scales"].shape) == (np.int32, (96,))


def test_graph_output_keeps_its_name(
    make_graph: Make, build: Callable[..., Any], run_model: Callable[..., Any]
) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="n")
    graph = make_graph([node], {"w": normal(1, 192, 192, 1, 1)}, {"x": ["n", 192, 2, 2]}, {"y": ["n", 192, 2, 2]})
    x = normal(2, 1, 192, 2, 2)
    _, written = build(graph, [{"x": x}])
    assert [value.name for value in onnx.load(written.file("model.onnx")).graph.output] == ["y"]
    assert sqnr(run_model(graph, x=x)[0], run_model(written, x=x)[0]) > 30


def test_bias_of_a_dead_channel_survives(
    make_graph: Make, build: Callable[..., Any], run_model: Callable[..., Any]
) -> None:
    """Pruning leaves channels of zeros, whose scale is so small that a bias would overflow int32."""
    weight, bias = normal(1, 192, 192, 1), normal(2, 192)
    weight[5], bias[5] = 0, 3
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="n")
    graph = make_graph([node], {"w": weight, "b": bias}, {"x": ["n", 192, 2]}, {"y": ["n", 192, 2]})
    x = normal(3, 1, 192, 2)
    (actual,) = run_model(build(graph, [{"x": x}])[1], x=x)
    np.testing.assert_allclose(actual[0, 5], 3, atol=0.2)


def test_corrected_biases_keep_the_mean(
    make_graph: Make, build: Callable[..., Any], run_model: Callable[..., Any]
) -> None:
    """Inputs of mean 3 turn rounded weights into a shift, which a bias takes out, though float has none."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="n")
    graph = make_graph([node], {"w": normal(1, 192, 192, 1)}, {"x": ["n", 192, "m"]}, {"y": ["n", 192, "m"]})
    x = normal(2, 1, 192, 500) + 3
    (exact,) = run_model(graph, x=x)
    shifts = []
    for corrected in (False, True):
        scheme = STATIC.model_copy(update={"bias_correction": corrected})
        (actual,) = run_model(build(graph, [{"x": x}], scheme)[1], x=x)
        shifts.append(np.abs((actual - exact).mean(axis=(0, 2))).mean())
    assert shifts[1] < 0.2 * shifts[0]


@pytest.mark.parametrize("bits", [{"weights": 8, "activations": "dynamic"}, {"weights": 8}, {"weights": 4}])
def test_without_calibrated_ranges_convolutions_are_stored_in_8_bits(
    bits: Any, network: Artifact, rows: list[Arrays], run_stage: Make, run_model: Callable[..., Any], tmp_path: Path
) -> None:
    """ONNX Runtime widens the codes once, so that what runs is the float graph."""
    plan = run_stage(quantize.run, Scheme(name="t", **bits), graph=network)
    stored = {entry["name"]: entry["format"] for entry in plan.metadata["formats"]}
    assert stored == dict.fromkeys(("stem.w", "right.w", "head.w"), "int8-stored")
    reasons = {entry["weight"]: entry["reason"] for entry in plan.metadata["left_in_float"]}
    assert reasons["deep.w"] == "only 288 values: less than its scales and extra nodes would cost"
    assert set(reasons) == {"deep.w", "left.w"}
    written = run_stage(writing.run, None, graph=network, plan=plan)
    assert not {"Cast", "Mul", "QLinearConv"} & set(operators(written, tmp_path))
    x = rows[0]["x"]
    assert sqnr(run_model(network, x=x)[0], run_model(written, x=x)[0]) > 40


def test_other_schemes_leave_convolutions_in_float(network: Artifact, run_stage: Make) -> None:
    with pytest.raises(StageError) as caught:  # there is nothing else in this network
        run_stage(quantize.run, Scheme(name="t", embeddings=8), graph=network)
    assert caught.value.message == (
        "The scheme 't' takes none of the model's weights: 5 x the scheme t keeps weights in float."
    )


def test_excluded_convolution_stays_in_float(
    network: Artifact, rows: list[Arrays], build: Callable[..., Any], tmp_path: Path
) -> None:
    scheme = STATIC.model_copy(update={"nodes_to_exclude": ("head",)})
    plan, written = build(network, rows, scheme)
    assert [(e["weight"], e["reason"]) for e in plan.metadata["left_in_float"]] == [("head.w", "excluded by name")]
    found = operators(written, tmp_path)
    assert (found.count("QLinearConv"), len([name for name in found if name in ("Conv", "FusedConv")])) == (4, 1)


def test_same_inputs_give_the_same_bytes(network: Artifact, rows: list[Arrays], build: Callable[..., Any]) -> None:
    first, second = build(network, rows)[1], build(network, rows)[1]
    for file in first.path.iterdir():
        assert file.read_bytes() == second.file(file.name).read_bytes()


def test_float16_weights_are_cast_once(
    network: Artifact, rows: list[Arrays], run_stage: Make, run_model: Callable[..., Any], tmp_path: Path
) -> None:
    half = Scheme(name="fp16", weights=16, embeddings=16)
    plan = run_stage(quantize.run, half, graph=network)
    assert plan.metadata["left_in_float"] == []
    written = run_stage(writing.run, None, graph=network, plan=plan)
    assert "Cast" not in operators(written, tmp_path)
    x = rows[0]["x"]
    assert sqnr(run_model(network, x=x)[0], run_model(written, x=x)[0]) > 55


def test_a_bias_takes_out_what_storing_the_weight_moves(
    make_graph: Make, build: Callable[..., Any], run_model: Callable[..., Any]
) -> None:
    """A convolution of each channel alone is stored in 8 bits and runs in float. Its inputs are 3 in the mean: each
    channel's mean stays where it was, though its weights do not."""
    weight, x = normal(1, 160, 1, 3, 3), 3 + normal(2, 1, 160, 12, 12)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="n", group=160)
    graph = make_graph([node], {"w": weight}, {"x": ["batch", 160, 12, 12]}, {"y": ["batch", 160, 10, 10]})
    exact = run_model(graph, x=x)[0].mean(axis=(0, 2, 3))
    off = {}
    for corrected in (True, False):
        plan, written = build(graph, [{"x": x}], STATIC.model_copy(update={"bias_correction": corrected}))
        assert plan.metadata["formats"][0]["format"] == "int8-stored"
        off[corrected] = np.abs(run_model(written, x=x)[0].mean(axis=(0, 2, 3)) - exact).mean()
    assert off[True] < off[False] / 5
