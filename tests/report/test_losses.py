"""Warnings of a bundle that ended slower or larger than float."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.checks.float_reference import FloatReference
from pipeline.checks.left_in_float import Reasons
from pipeline.checks.measurements import Case, Measurements
from pipeline.checks.weights import Weight
from pipeline.config.loading import load_target
from pipeline.core.report_types import Measured, OperatorTime, TensorGroup
from pipeline.core.types import Doubt, Evidence, Figure
from pipeline.quantize.schemes import SCHEMES
from pipeline.report.losses import loss_warnings
from pipeline.runtime.behaviour import Behaviour

TIMES = {
    "operators": [OperatorTime(op_type="QLinearConv", count=9, ms=3.0, share=1.0)],
    "float_operators": [OperatorTime(op_type="Conv", count=9, ms=2.0, share=1.0)],
}


def figure(value: float, doubt: Doubt | None = None) -> Figure:
    return Figure(value=value, unit="x", evidence=Evidence.HOST, doubt=doubt)


@pytest.fixture
def found(tmp_path: Path) -> Measurements:
    """Of a target without a budget on speed; the bundle's model has 800 bytes, the float model 1,000."""
    for name, size in (("bundle", 800), ("float", 1000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(bytes(size))
    target = load_target("phone")
    budgets = {name: budget for name, budget in target.budgets.items() if name != "min_speedup"}
    reference = FloatReference(tmp_path / "float", tmp_path, tmp_path, tmp_path, Behaviour.model_construct())
    case = Case(
        tmp_path / "bundle",
        target.model_copy(update={"budgets": budgets}),
        SCHEMES.get("w8a8"),
        Reasons(),
        reference=reference,
    )
    tensors = [TensorGroup(name="c.weight", dtype="int8", megabytes=0.0007, share=0.9)]
    return Measurements(case, Measured.model_validate({**TIMES, "tensors": tensors}), 0.001)


def test_nothing_is_said_of_a_bundle_that_gained(found: Measurements) -> None:
    assert loss_warnings(found, {"min_speedup": figure(1.2)}) == []
    assert loss_warnings(found, {}) == []


def test_slower_than_float_is_said_where_no_budget_does(found: Measurements) -> None:
    (said,) = loss_warnings(found, {"min_speedup": figure(0.8)})
    assert said == (
        "The bundle is slower than the float model: 0.8x. QLinearConv x9: 3.00 ms, 100%; products: 3.00 ms, in float "
        "2.00 ms; rounding beside them: 0.00 ms. On this machine the products with 8-bit arithmetic are slower than in "
        "float: measure on the device, or leave the slowest layers in float with --nodes-to-exclude."
    )
    in_doubt = figure(0.8, Doubt(low=0.7, high=1.1, why="noise", remedy="Again."))
    assert loss_warnings(found, {"min_speedup": in_doubt}) == []
    with_budget = replace(found, case=replace(found.case, target=load_target("phone")))
    assert loss_warnings(with_budget, {"min_speedup": figure(0.8)}) == []


def test_larger_than_float_names_the_largest_and_what_is_smaller(found: Measurements) -> None:
    (found.case.bundle / "model.onnx").write_bytes(bytes(1500))
    (said,) = loss_warnings(found, {})
    assert said == (
        "The model takes 0.0015 MB in the bundle and 0.001 MB in float: the scheme w8a8 saves nothing here. The "
        "largest: c.weight (0.0007 MB); the scheme fp32 is smallest."
    )
    weights = (Weight(name="c.weight", op_type="MatMul", dims=(100, 100), bits=8, values=10_000),)
    (said,) = loss_warnings(replace(found, weights=weights, megabytes=0.02), {})
    assert said.endswith("c.weight (0.0007 MB); the scheme w4 would bring the bundle to about 0.0156 MB.")


def test_float_is_not_compared_with_itself(found: Measurements) -> None:
    (found.case.bundle / "model.onnx").write_bytes(bytes(1500))
    assert loss_warnings(replace(found, case=replace(found.case, scheme=SCHEMES.get("fp32"))), {}) == []
