"""Weights of one graph in several formats: what is stored, what runs, and what two readers of a weight may not have."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper
from safetensors.numpy import load_file

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError, UsageError
from pipeline.core.types import Scheme
from pipeline.quantize import calibrate, quantize
from pipeline.quantize import write as writing
from pipeline.quantize.plan import PLAN
from pipeline.quantize.shards import CODES

Make = Callable[..., Artifact]
STATIC = Scheme(name="t", weights=8, activations="static")


def overridden(scheme: Scheme, overrides: dict[str, str], **more: Any) -> Scheme:
    return Scheme.model_validate({**scheme.model_dump(), "overrides": overrides, **more})


def sqnr(reference: NDArray[Any], actual: NDArray[Any]) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - actual).sum()))


def operators(artifact: Artifact) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(artifact.file("model.onnx")).graph.node)


def test_products_of_one_activation_in_two_formats(
    graph: Artifact, samples: Artifact, ids: NDArray[np.int64], run_stage: Make, run_model: Callable[..., Any]
) -> None:
    """a = h @ A in static INT8, b = h @ B in 4-bit blocks rounded with GPTQ."""
    scheme = overridden(STATIC, {"b/*": "int4-block", "words/*": "int4-block"}, rounding="gptq")
    given = {
        "ranges": run_stage(calibrate.ranges, scheme, graph=graph, samples=samples),
        "hessians": run_stage(calibrate.hessians, scheme, graph=graph, samples=samples),
    }
    plan = run_stage(quantize.run, scheme, graph=graph, **given)
    written = run_stage(writing.run, None, graph=graph, plan=plan)
    found = operators(written)
    wanted = {"MatMulNBits": 1, "GatherBlockQuantized": 1, "QuantizeLinear": 1, "MatMul": 1}
    assert {name: found[name] for name in wanted} == wanted
    rows = [tuple(entry.values()) for entry in plan.metadata["formats"]]
    assert rows == [
        ("A", "a/MatMul", "linear", "int8-channel", "", 48 * (100 + 4) / 1e6),
        ("B", "b/MatMul", "linear", "int4-block", "b/*", 64 * 4 * (16 + 4) / 1e6),  # 4 blocks of 32 to a column
        ("table", "words/Gather", "table", "int4-block", "words/*", 60 * (50 + 4 * 4) / 1e6),
    ]
    assert plan.metadata["damping"].keys() == {"h"}
    for exact, actual in zip(run_model(graph, ids=ids), run_model(written, ids=ids), strict=True):
        assert 15 < sqnr(exact, actual) < 30


def test_formats_are_those_of_arrays(graph: Artifact, run_stage: Make) -> None:
    scheme = overridden(Scheme(name="t", weights=4, scale_bits=16), {"a/*": "int8-channel", "words/*": "fp16"})
    plan = run_stage(quantize.run, scheme, graph=graph)
    arrays = load_file(plan.file(CODES))
    kinds = {name: str(array.dtype) for name, array in arrays.items()}
    assert kinds == {
        "A.codes": "int8",
        "A.scales": "float32",
        "B.codes": "uint8",
        "B.scales": "float16",
        "table.codes": "float16",
    }
    sizes = {entry["name"]: entry["megabytes"] for entry in plan.metadata["formats"]}
    for name, size in sizes.items():
        stored = sum(array.nbytes for part, array in arrays.items() if part.startswith(f"{name}."))
        assert size == pytest.approx(stored / 1e6)


def test_a_float_override_is_a_reason(graph: Artifact, run_stage: Make) -> None:
    scheme = overridden(Scheme(name="t", weights=4), {"a/*": "fp32", "words/*": "int4-widened"})
    left = run_stage(quantize.run, scheme, graph=graph).metadata["left_in_float"]
    assert {entry["weight"]: entry["reason"] for entry in left} == {
        "A": "the scheme t keeps weights in float (override 'a/*')",
        "table": "rows are looked up and not multiplied, so that widening them gains nothing: use int4-block "
        "(override 'words/*')",
    }


def test_convolutions_in_three_formats(
    make_graph: Make, make_samples: Make, run_stage: Make, run_model: Callable[..., Any]
) -> None:
    """Two in a row in integers, then one with float16 weights and one in float."""
    draw = np.random.default_rng(0).normal
    weights = {name: draw(size=(192, 192, 1)).astype(np.float32) / 14 for name in "ABCD"}
    ends = ["x", "a", "b", "c", "y"]
    steps = zip(ends, weights, ends[1:], strict=False)
    nodes = [helper.make_node("Conv", [source, name], [end], name=end) for source, name, end in steps]
    graph = make_graph(nodes, weights, {"x": ["n", 192, 5]}, {"y": ["n", 192, 5]})
    rows = [{"x": draw(size=(1, 192, 5)).astype(np.float32)} for _ in range(8)]
    scheme = overridden(STATIC, {"c": "fp16", "y": "fp32"})
    ranges = run_stage(calibrate.ranges, scheme, graph=graph, samples=make_samples(rows))
    plan = run_stage(quantize.run, scheme, graph=graph, ranges=ranges)
    written = run_stage(writing.run, None, graph=graph, plan=plan)
    stored = {entry["name"]: entry["format"] for entry in plan.metadata["formats"]}
    assert stored == {"A": "int8-channel", "B": "int8-channel", "C": "fp16"}
    assert [(entry["weight"], entry["reason"]) for entry in plan.metadata["left_in_float"]] == [
        ("D", "the scheme t keeps weights in float (override 'y')")
    ]
    tensors = [entry["tensor"] for entry in json.loads(plan.file(PLAN).read_text())["tensors"]]
    assert tensors == ["x", "a", "b"]  # what the last two give is not rounded
    x = np.concatenate([row["x"] for row in rows])
    assert 25 < sqnr(run_model(graph, x=x)[0], run_model(written, x=x)[0]) < 45


def test_one_weight_cannot_be_stored_in_two_ways(make_graph: Make, run_stage: Make) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["p"], name="p"),
        helper.make_node("MatMul", ["p", "W"], ["y"], name="y"),
    ]
    graph = make_graph(nodes, {"W": weight}, {"x": ["rows", 64]}, {"y": ["rows", 64]})
    scheme = overridden(Scheme(name="t", weights=4), {"y": "int8-channel"})
    with pytest.raises(StageError) as caught:
        run_stage(quantize.run, scheme, graph=graph)
    assert caught.value.message == "The nodes 'p' and 'y' read one weight, 'W', which cannot be stored in two ways."
    assert caught.value.remedy == (
        "Give both the same format with [scheme.overrides], or leave one out with --nodes-to-exclude."
    )
    same = overridden(Scheme(name="t", weights=4), {"*": "fp16"})
    assert run_stage(quantize.run, same, graph=graph).metadata["linears"] == 2


@pytest.mark.parametrize("stage", [quantize.run, calibrate.ranges])
def test_a_pattern_that_matches_nothing_is_refused_by_the_first_stage(
    stage: Any, graph: Artifact, samples: Artifact, run_stage: Make
) -> None:
    scheme = overridden(STATIC, {"c/*": "fp16"})
    with pytest.raises(UsageError) as caught:
        run_stage(stage, scheme, graph=graph, samples=samples)
    assert caught.value.message == "The scheme's override 'c/*' matches no node that reads a weight."
    assert caught.value.remedy.startswith("Names look like: ")
