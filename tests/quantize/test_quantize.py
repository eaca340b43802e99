from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper
from safetensors.numpy import load_file

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.types import Scheme
from pipeline.numerics.affine import pair_floor
from pipeline.quantize import calibrate, quantize
from pipeline.quantize import write as writing
from pipeline.quantize.plan import PLAN
from pipeline.quantize.shards import CODES

Make = Callable[..., Artifact]
DYNAMIC = Scheme(name="t", weights=8, activations="dynamic")


def plan_of(artifact: Artifact) -> dict[str, Any]:
    return json.loads(artifact.file(PLAN).read_text())


def test_dynamic_plan_and_codes(graph: Artifact, constants: dict[str, NDArray[Any]], run_stage: Make) -> None:
    artifact = run_stage(quantize.run, DYNAMIC, graph=graph)
    plan = plan_of(artifact)
    entries = [(entry["node"], entry["weight"], entry["input"]["ranges"], *entry["shape"]) for entry in plan["linears"]]
    assert entries == [("a/MatMul", "A", "run time", 100, 48), ("b/MatMul", "B", "run time", 100, 64)]
    assert plan["tables"] == []
    arrays = load_file(artifact.file(CODES))
    assert arrays.keys() == {"A.codes", "A.scales", "B.codes", "B.scales"}
    scale = np.maximum(np.abs(constants["A"]).max(axis=0) / np.float32(127), pair_floor(constants["A"]))
    np.testing.assert_allclose(arrays["A.scales"], scale, rtol=1e-6)
    np.testing.assert_array_equal(arrays["A.codes"], np.rint(constants["A"] / scale))


def test_static_plan_holds_the_activations_range(
    graph: Artifact, samples: Artifact, constants: dict[str, NDArray[Any]], run_stage: Make
) -> None:
    scheme = Scheme(name="t", weights=8, activations="static")
    ranges = run_stage(calibrate.ranges, scheme, graph=graph, samples=samples)
    low, high = constants["table"].min(), constants["table"].max()  # all rows are in the samples
    for entry in plan_of(run_stage(quantize.run, scheme, graph=graph, ranges=ranges))["linears"]:
        assert entry["format"] == "int8-channel"
        assert entry["input"]["ranges"] == "calibrated"
        assert entry["input"]["scale"] == pytest.approx((high - low) / 255, rel=1e-6)
        assert entry["input"]["zero_point"] == round(-255 * float(low / (high - low)))


@pytest.mark.parametrize(("size", "blocks"), [(16, 7), (32, 4), (128, 1)])
def test_block_shapes(size: int, blocks: int, graph: Artifact, run_stage: Make) -> None:
    """Products are padded to whole blocks of K = 100, as MatMulNBits has it; tables are not."""
    artifact = run_stage(
        quantize.run,
        Scheme.model_validate(
            {"name": "t", "weights": 4, "embeddings": 4, "block_size": size, "embedding_block_size": size}
        ),
        graph=graph,
    )
    arrays = load_file(artifact.file(CODES))
    assert (arrays["A.codes"].shape, arrays["A.scales"].shape) == ((48, blocks, size // 2), (48, blocks))
    assert (arrays["table.codes"].shape, arrays["table.scales"].shape) == ((60, 50), (60, blocks))
    plan = plan_of(artifact)
    assert {entry["parameters"]["block_size"] for entry in plan["linears"] + plan["tables"]} == {size}


def test_what_the_scheme_keeps_is_said(graph: Artifact, run_stage: Make) -> None:
    left = run_stage(quantize.run, DYNAMIC, graph=graph).metadata["left_in_float"]
    assert left == [
        {"weight": "table", "op_type": "Gather", "bytes": 24000, "reason": "the scheme t keeps embeddings in float"}
    ]
    left = run_stage(quantize.run, Scheme(name="e", embeddings=8), graph=graph).metadata["left_in_float"]
    assert [(entry["weight"], entry["reason"]) for entry in left] == [
        ("A", "the scheme e keeps weights in float"),
        ("B", "the scheme e keeps weights in float"),
    ]


def test_rows_of_odd_length_stay_in_float(make_graph: Make, run_stage: Make) -> None:
    node = helper.make_node("Gather", ["table", "ids"], ["y"], name="g")
    graph = make_graph([node], {"table": np.ones((100, 51), np.float32)}, {"ids": ["n"]}, {"y": ["n", 51]})
    with pytest.raises(StageError) as caught:  # there is nothing else in this graph
        run_stage(quantize.run, Scheme(name="t", embeddings=4), graph=graph)
    reason = "its rows have 51 values: two 4-bit codes share a byte, so that the number must be even"
    assert caught.value.message == f"The scheme 't' takes none of the model's weights: 1 x {reason}."


def test_excluded_weight_is_in_the_plan_with_its_reason(graph: Artifact, run_stage: Make) -> None:
    scheme = DYNAMIC.model_copy(update={"nodes_to_exclude": ("a/*",), "embeddings": 8})
    facts = run_stage(quantize.run, scheme, graph=graph).metadata
    assert (facts["linears"], facts["tables"]) == (1, 1)
    assert [(entry["weight"], entry["reason"]) for entry in facts["left_in_float"]] == [("A", "excluded by name")]


def test_weight_of_two_products_is_stored_once(
    make_graph: Make, run_stage: Make, run_model: Callable[..., list[NDArray[Any]]]
) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["p"], name="p"),
        helper.make_node("MatMul", ["p", "W"], ["y"], name="y"),
    ]
    graph = make_graph(nodes, {"W": weight}, {"x": ["rows", 64]}, {"y": ["rows", 64]})
    plan = run_stage(quantize.run, DYNAMIC, graph=graph)
    assert load_file(plan.file(CODES)).keys() == {"W.codes", "W.scales"}
    x = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    (actual,) = run_model(run_stage(writing.run, None, graph=graph, plan=plan), x=x)
    expected = x @ weight @ weight
    assert np.square(actual - expected).sum() < 1e-3 * np.square(expected).sum()


def test_zero_columns_stay_zero(
    make_graph: Make, run_stage: Make, run_model: Callable[..., list[NDArray[Any]]]
) -> None:
    """A pruned neuron must not come back as noise."""
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    weight[:, 7] = 0
    node = helper.make_node("MatMul", ["x", "W"], ["y"], name="y")
    graph = make_graph([node], {"W": weight}, {"x": ["rows", 64]}, {"y": ["rows", 64]})
    for scheme in (DYNAMIC, Scheme(name="t", weights=4)):
        plan = run_stage(quantize.run, scheme, graph=graph)
        (actual,) = run_model(run_stage(writing.run, None, graph=graph, plan=plan), x=np.ones((2, 64), np.float32))
        assert not actual[:, 7].any()
        assert actual[:, 8].any()


def test_scales_that_float16_cannot_hold_stay_in_float32(make_graph: Make, run_stage: Make) -> None:
    weight = np.random.default_rng(0).normal(scale=1e-6, size=(64, 64)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "W"], ["y"], name="y")
    graph = make_graph([node], {"W": weight}, {"x": ["rows", 64]}, {"y": ["rows", 64]})
    plan = run_stage(quantize.run, Scheme(name="t", weights=4, scale_bits=16), graph=graph)
    assert plan_of(plan)["linears"][0]["parameters"]["scale_bits"] == 32
    assert load_file(plan.file(CODES))["W.scales"].dtype == np.float32


def test_values_below_float16_stay_in_float32(make_graph: Make, run_stage: Make) -> None:
    node = helper.make_node("MatMul", ["x", "W"], ["y"], name="y")
    constants = {"W": np.full((64, 64), 1e-5, np.float32), "V": np.ones((64, 64), np.float32)}
    other = helper.make_node("MatMul", ["y", "V"], ["z"], name="z")
    graph = make_graph([node, other], constants, {"x": ["rows", 64]}, {"z": ["rows", 64]})
    plan = run_stage(quantize.run, Scheme(name="t", weights=16), graph=graph)
    reason = "all of its values are below float16's smallest at full precision, 0.000061"
    assert [(entry["weight"], entry["reason"]) for entry in plan.metadata["left_in_float"]] == [("W", reason)]


def test_values_that_float16_cannot_hold_stay_in_float32(make_graph: Make, run_stage: Make) -> None:
    node = helper.make_node("MatMul", ["x", "W"], ["y"], name="y")
    graph = make_graph([node], {"W": np.full((64, 64), 7e4, np.float32)}, {"x": ["rows", 64]}, {"y": ["rows", 64]})
    with pytest.raises(StageError) as caught:  # there is nothing else in this graph
        run_stage(quantize.run, Scheme(name="t", weights=16), graph=graph)
    reason = "it has values beyond float16's largest, 65504"
    assert caught.value.message == f"The scheme 't' takes none of the model's weights: 1 x {reason}."


def test_gptq_changes_outputs_less_and_records_its_damping(
    graph: Artifact,
    samples: Artifact,
    ids: NDArray[np.int64],
    run_stage: Make,
    run_model: Callable[..., list[NDArray[Any]]],
) -> None:
    """60 samples of 100 channels: a singular Hessian, so that damping is needed, and some directions are free."""
    errors = []
    for rounding in ("nearest", "gptq"):
        scheme = Scheme.model_validate({"name": "t", "weights": 4, "rounding": rounding})
        given = {"graph": graph}
        if rounding == "gptq":
            given["hessians"] = run_stage(calibrate.hessians, scheme, graph=graph, samples=samples)
        plan = run_stage(quantize.run, scheme, **given)
        written = run_stage(writing.run, None, graph=graph, plan=plan)
        pairs = zip(run_model(graph, ids=ids), run_model(written, ids=ids), strict=True)
        errors.append(sum(float(np.square(a - b).sum()) for a, b in pairs))
    assert errors[1] < 0.6 * errors[0]
    assert plan.metadata["damping"] == {"h": 0.01}
