"""What budgets make of counted instructions."""

from __future__ import annotations

from typing import Any

import pytest
from measured import measured

from pipeline.checks.budgets.instructions import DOT, RATIO, TOTAL
from pipeline.checks.budgets.metric import Absent
from pipeline.checks.budgets.tiers import NOT_TRIED
from pipeline.core.report_types import Coverage, InstructionCounts, TierCheck
from pipeline.core.types import Evidence, Figure, computed


def counts(total: int, **classes: int) -> InstructionCounts:
    none = dict.fromkeys(("dot", "dot_half", "mmla", "mlal", "fmla", "bf16", "load", "store"), 0)
    return InstructionCounts(total=total, **(none | classes))


def tier(name: str = "i8mm", **changes: Any) -> TierCheck:
    return TierCheck(tier=name, cpu="c", isa=("asimd",), evidence=Evidence.EMULATED, **changes)


def covered(products: float) -> Coverage:
    share = computed(1.0, "share", "")
    return Coverage(weights=share, macs=share, integer_macs=share, quantized_products=products)


def figure(outcome: Any) -> Figure:
    assert isinstance(outcome, Figure)
    return outcome


def test_the_targets_own_tier_counts() -> None:
    own = tier(counts=counts(2_000_000), float_counts=counts(5_000_000))
    found = measured(tiers=(own, tier("asimd", counts=counts(9_000_000))))
    total, ratio = figure(TOTAL.figure(found)), figure(RATIO.figure(found))
    assert (total.value, total.note) == (2.0, "one inference on i8mm; instructions are not latency")
    assert (ratio.value, ratio.note) == (2.5, "float 5.0 M on i8mm; instructions are not latency")


def test_products_by_dot_product_kernels() -> None:
    """960 products in the graph; 10 sdot do 160 of them and 20 smmla 640, so that a sixth fell back."""
    own = tier(counts=counts(1000, dot=10, mmla=20, mlal=20, fmla=3))
    found = measured(tiers=(own,), coverage=covered(960))
    dot = figure(DOT.figure(found))
    assert dot.value == pytest.approx(5 / 6)
    assert dot.note == "800 multiply-accumulates of 960 in the graph, on i8mm; kernels may pad"
    assert DOT.explain(1.0, found)[0] == (
        "20 integer multiplications that are no dot products",
        "3 float multiply-accumulates",
    )


@pytest.mark.parametrize(
    ("tiers", "products", "absent"),
    [
        ((), 1, Absent(NOT_TRIED)),
        ((tier(uncounted="there is no C compiler"),), 1, Absent("on i8mm: there is no C compiler")),
        ((tier(failure="it crashed."),), 1, Absent("on i8mm: it crashed.")),
        ((tier(),), 1, Absent("on i8mm: only the runner arm64 counts instructions")),
        ((tier("asimd", counts=counts(9)),), 1, Absent("cores of the tier asimd have no dot products", applies=False)),
        ((tier(counts=counts(9)),), 0, Absent("the graph has no quantized products", applies=False)),
    ],
)
def test_why_there_is_no_figure(tiers: tuple[TierCheck, ...], products: float, absent: Absent) -> None:
    assert DOT.figure(measured(tiers=tiers, coverage=covered(products))) == absent


def test_without_the_float_model() -> None:
    outcome = RATIO.figure(measured(tiers=(tier(counts=counts(9)),)))
    assert isinstance(outcome, Absent) and outcome.reason.startswith("the float model is not here")


def test_a_thousandth_more_than_a_baseline_is_too_many() -> None:
    assert TOTAL.tolerance is not None
    assert TOTAL.tolerance.limit(166.6, "at most") == pytest.approx(166.7666)
