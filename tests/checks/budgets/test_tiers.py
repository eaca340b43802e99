"""What budgets make of the answers on CPU tiers."""

from __future__ import annotations

from typing import Any

import pytest
from measured import measured

from pipeline.checks.budgets.metric import Absent
from pipeline.checks.budgets.tiers import GOLDEN, NOT_TRIED, TIER_DROP, implied
from pipeline.core.report_types import DatasetAccuracy, TierAccuracy, TierCheck
from pipeline.core.types import Evidence, Figure, Verdict
from pipeline.gate.gate import judge_budgets

HERE = DatasetAccuracy(dataset="news", samples=100, labelled=False, primary="cosine", scores={}, drop=0.5)


def tier(name: str, matched: int = 4, drop: float = 0.25, **changes: Any) -> TierCheck:
    """A tier that loses `drop` points on 16 samples, on which this machine loses 0.25."""
    accuracy = TierAccuracy(
        dataset="news", samples=16, whole=100, primary="cosine", drop=drop, host_drop=0.25, same=False, sqnr_db=30.0
    )
    return TierCheck(
        tier=name,
        cpu="c",
        isa=("asimd",),
        evidence=Evidence.EMULATED,
        golden=4,
        matched=matched,
        difference=0.5,
        tolerance=0.02,
        accuracy=(accuracy,),
        **changes,
    )


def figure(outcome: Any) -> Figure:
    assert isinstance(outcome, Figure)
    return outcome


def test_the_worst_tier_counts() -> None:
    found = measured(accuracy=(HERE,), tiers=(tier("asimd"), tier("i8mm", matched=3, drop=1.0)))
    golden, drop = figure(GOLDEN.figure(found)), figure(TIER_DROP.figure(found))
    assert (golden.value, golden.note, golden.evidence) == (0.75, "2 tiers; worst: i8mm", Evidence.EMULATED)
    assert drop.value == 1.25  # 0.5 of the whole set here, and 0.75 beyond it there
    assert drop.note == "worst: i8mm on news, 16 of 100 samples ran there"


def test_a_tier_on_which_nothing_runs_gives_nothing() -> None:
    found = measured(accuracy=(HERE,), tiers=(tier("asimd", failure="it is refused."), tier("i8mm")))
    assert figure(GOLDEN.figure(found)).value == 0.0
    assert GOLDEN.explain(1.0, found)[0] == ("asimd: it is refused.",)


def test_what_a_failure_says() -> None:
    found = measured(tiers=(tier("asimd", matched=1), tier("i8mm")))
    (line,), remedy = GOLDEN.explain(1.0, found)
    assert line == "asimd: 1 of 4 golden outputs (off by 0.5 of the largest value, 0.02 is allowed)"
    assert remedy.startswith("The file answers otherwise on these CPUs than where it was made.")


def test_where_no_tier_was_tried_nothing_is_implied() -> None:
    assert implied(measured()) == {}
    assert GOLDEN.figure(measured()) == TIER_DROP.figure(measured()) == Absent(NOT_TRIED)


@pytest.mark.parametrize(
    ("matched", "drop", "failed"), [(4, 0.25, []), (3, 0.25, ["min_golden_match"]), (4, 1.0, ["max_tier_drop"])]
)
def test_tiers_that_were_tried_are_gated(matched: int, drop: float, failed: list[str]) -> None:
    """The phone allows a drop of one point: 0.5 here and 0.75 more on the tier are too much."""
    found = measured(accuracy=(HERE,), tiers=(tier("dotprod", matched, drop),))
    told = {"min_golden_match": GOLDEN.figure(found), "max_tier_drop": TIER_DROP.figure(found)}
    results = judge_budgets(found, told)
    assert [result.metric for result in results][-2:] == ["min_golden_match", "max_tier_drop"]
    assert all(result.required for result in results[-2:])
    assert [result.metric for result in results if result.verdict is Verdict.FAIL] == failed
