from __future__ import annotations

from dataclasses import replace

import pytest
from measured import FP32, figure, judged, measured

from pipeline.checks.budgets.decoding import FIRST, RATE
from pipeline.checks.budgets.language import EXACT_MATCH, KL, PERPLEXITY, REPETITION
from pipeline.checks.budgets.metric import NO_REFERENCE, Absent
from pipeline.checks.measurements import Measurements
from pipeline.core.report_types import DatasetAccuracy, DecodingResult, ExactMatch, ReadTime, WrittenTexts
from pipeline.core.types import Figure

SPEEDS = DecodingResult(
    prompts=tuple(ReadTime(tokens=n, p50=figure(n, "ms"), p95=figure(2 * n, "ms")) for n in (16, 128)),
    rates={129: figure(90.0, "tokens/s"), 2048: figure(40.0, "tokens/s")},
    cache_bytes_per_token=64,
)


def result(name: str, **scores: float) -> DatasetAccuracy:
    return DatasetAccuracy(
        dataset=name, samples=9, labelled=True, primary="next_token_accuracy", scores=scores, drop=0.0
    )


def test_the_slowest_place_and_the_targets_prompt_count() -> None:
    found = measured(decoding=SPEEDS)
    assert FIRST.figure(found) == figure(256.0, "ms")  # the phone's texts have 128 tokens
    assert RATE.figure(found) == figure(40.0, "tokens/s")


def test_models_that_write_nothing_have_no_such_figures() -> None:
    for metric in (FIRST, RATE):
        assert metric.figure(measured()) == Absent("it does not apply to a model that writes no texts", applies=False)
    for metric in (KL, PERPLEXITY):
        outcome = metric.figure(judged("embedding", result("a", kl=1.0)))
        assert isinstance(outcome, Absent)
        assert not outcome.applies


def test_the_worst_set_counts() -> None:
    first = result("a", kl=0.03, perplexity=11.0, perplexity_float=10.0)
    second = result("b", kl=0.02, perplexity=21.0, perplexity_float=20.0)
    kl, rise = (metric.figure(judged("language_model", first, second)) for metric in (KL, PERPLEXITY))
    assert isinstance(kl, Figure)
    assert isinstance(rise, Figure)
    assert (kl.value, kl.unit, kl.note) == (0.03, "nats", "worst set: a (mean per token)")
    assert rise.value == pytest.approx(10.0)
    assert (rise.unit, rise.note) == ("%", "worst set: a (of float's perplexity)")


def test_repetition_is_counted_above_that_of_float() -> None:
    written = {"texts": 4, "tokens": 64, "same": 0.5, "first_difference": 20, "repeated": 0.3, "repeated_float": 0.25}
    written["interval"] = 0.02
    found = REPETITION.figure(measured(texts=WrittenTexts(**written), decoding=SPEEDS))
    assert isinstance(found, Figure)
    assert found.value == pytest.approx(5.0)
    assert (found.low, found.high) == (pytest.approx(3.0), pytest.approx(7.0))
    assert (found.unit, found.note) == ("points", "25.0 % in float")
    one = REPETITION.figure(measured(texts=WrittenTexts(**{**written, "texts": 1, "interval": None}), decoding=SPEEDS))
    assert isinstance(one, Figure)
    assert (one.low, one.high) == (None, None)
    none = REPETITION.figure(measured(texts=WrittenTexts(**{**written, "texts": 0}), decoding=SPEEDS))
    assert none == Absent("no evaluation text has a token to begin with")


def test_texts_that_were_not_compared_are_missing_where_a_model_writes_some() -> None:
    assert REPETITION.figure(measured()) == Absent("it does not apply to a model that writes no texts", applies=False)
    in_float = REPETITION.figure(measured(FP32, decoding=SPEEDS))
    assert in_float == Absent("it does not apply to a model in float, with which others are compared", applies=False)
    assert REPETITION.figure(measured(decoding=SPEEDS)) == Absent(NO_REFERENCE)


def test_without_the_float_model_there_is_no_figure() -> None:
    assert isinstance(KL.figure(measured()), Absent)


def _solving(right: int, right_float: int, problems: int = 100, reason: str = "") -> Measurements:
    found = ExactMatch(
        dataset="sums",
        given=problems,
        problems=problems,
        too_long=0,
        right=right,
        right_float=right_float,
        lost=5,
        low=-1.0,
        high=9.0,
        chat=False,
        reason=reason,
    )
    made = judged("language_model", exact_match=(found,), decoding=SPEEDS)
    target = made.case.target.for_task("text-generation")
    return replace(made, case=replace(made.case, target=target))


def test_problems_that_fewer_are_solved_of() -> None:
    found = EXACT_MATCH.figure(_solving(56, 60))
    assert isinstance(found, Figure)
    assert (found.value, found.low, found.high, found.unit) == (4.0, -1.0, 9.0, "points")
    assert found.note == "sums: 56 of 100 solved, 60 in float"


def test_a_limit_that_a_model_keeps_which_solves_nothing_is_not_measured() -> None:
    """The phone allows 5 points: of 5 problems that float solves, all may be lost."""
    assert EXACT_MATCH.figure(_solving(5, 5)) == Absent(
        "the float model solves 5 of 100 problems of sums, and one that solves none would keep a limit of 5 points: "
        "give problems that it can solve"
    )
    assert isinstance(EXACT_MATCH.figure(_solving(0, 6)), Figure)


def test_problems_that_do_not_fit_or_are_not_given() -> None:
    assert EXACT_MATCH.figure(_solving(0, 0, problems=0, reason="all are too long")) == Absent("all are too long")
    no_set = EXACT_MATCH.figure(judged("language_model", decoding=SPEEDS))
    assert isinstance(no_set, Absent)
    assert not no_set.applies
    assert EXACT_MATCH.figure(measured(decoding=SPEEDS)) == Absent(NO_REFERENCE)
    assert EXACT_MATCH.figure(measured()) == Absent("it does not apply to a model that writes no texts", applies=False)
