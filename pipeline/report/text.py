"""Figures, limits, margins and verdicts in plain words (ASCII, so that any terminal or log can show them)."""

from __future__ import annotations

import re
from decimal import Decimal

from pipeline.core.report_types import (
    BudgetResult,
    Drift,
    ExactMatch,
    NpuGraph,
    OutputError,
    Report,
    TierAccuracy,
    TierCheck,
)
from pipeline.core.types import Evidence, Figure, Json, Verdict

SUFFIX = {"share": "", "x": "x"}
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """`text` with control characters (which XML 1.0, section 2.2, refuses and terminals obey) as U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def number(value: float, digits: int = 4) -> str:
    """`value` at `digits` significant digits; whole numbers in full, with thousands separators."""
    if abs(value) >= 10 ** (digits - 1) or value == int(value):
        return f"{value:,.0f}"
    shown = f"{value:.{digits}g}"
    return f"{Decimal(shown):f}" if abs(value) >= 1e-6 else shown


def telling_digits(value: float, limit: float) -> int:
    """Fewest significant digits (at least 4) at which `value` and a different `limit` do not look alike."""
    if value == limit:
        return 4
    return next((digits for digits in range(4, 17) if number(value, digits) != number(limit, digits)), 17)


def with_unit(shown: str, unit: str) -> str:
    """`18.2` and `ms` as `18.2 ms`; a factor as `2.3x`; a share as the bare number between 0 and 1."""
    if unit == "points" and shown.lstrip("+-") == "1":
        return f"{shown} point"
    return shown + SUFFIX.get(unit, f" {unit}")


def interval(figure: Figure) -> str:
    """The 95 % confidence interval, as `[17.6, 18.1]`, or an empty string without one."""
    if figure.low is None or figure.high is None:
        return ""
    return f"[{number(figure.low)}, {number(figure.high)}]"


def figure_text(figure: Figure) -> str:
    """Value, unit and confidence interval: `18.2 ms [17.6, 18.9]`."""
    return f"{with_unit(number(figure.value), figure.unit)} {interval(figure)}".rstrip()


def value_text(result: BudgetResult) -> str:
    """What was measured, with as many digits as it takes to tell it from the limit; `-` if nothing was."""
    if result.figure is None:
        return "-"
    digits = telling_digits(result.figure.value, result.limit)
    return with_unit(number(result.figure.value, digits), result.figure.unit)


def limit_text(result: BudgetResult) -> str:
    """`at most 25 ms`."""
    return f"{result.direction} {with_unit(number(result.limit, 6), result.unit)}"


def margin_text(result: BudgetResult) -> str:
    """How far within the limit, signed and in the budget's unit: `+6.8 ms`; `-` if it was not measured."""
    if result.margin is None:
        return "-"
    sign = "-" if result.margin < 0 else "+"
    return with_unit(sign + number(abs(result.margin), 3), result.unit)


def evidence_text(result: BudgetResult) -> str:
    """How the figure was got; without a figure, the kinds of evidence that would count."""
    if result.figure is not None:
        return str(result.figure.evidence)
    return "needs " + " or ".join(result.accepts)


def count(how_many: int, noun: str) -> str:
    """`1 budget`, `2 budgets`."""
    return f"{how_many} {noun}" if how_many == 1 else f"{how_many} {noun}s"


def summary(report: Report) -> str:
    """One sentence on how the budgets came out."""
    by_verdict = {verdict: _having(report, verdict) for verdict in Verdict}
    failed, unmeasured = by_verdict[Verdict.FAIL], by_verdict[Verdict.NOT_MEASURED]
    parts = [f"{len(by_verdict[Verdict.PASS])} of {count(len(report.budgets), 'budget')} held"]
    if failed:
        parts.append(f"{len(failed)} failed: {_names(failed)}")
    if unmeasured:
        parts.append(f"{len(unmeasured)} not measured: {_names(unmeasured)}")
    return "; ".join(parts) + "."


def _having(report: Report, verdict: Verdict) -> list[BudgetResult]:
    return [result for result in report.budgets if result.verdict is verdict]


def _names(results: list[BudgetResult]) -> str:
    return ", ".join(result.metric + ("" if result.required else " (optional)") for result in results)


def host_sentence(report: Report) -> str:
    """What `host` evidence means for this report; empty if no figure was measured on the host."""
    shown = [*report.figures.values(), *(result.figure for result in report.budgets if result.figure)]
    if all(figure.evidence is not Evidence.HOST for figure in shown):
        return ""
    device = report.target_title
    return f"Evidence 'host' was measured on this machine ({report.host.cpu}), not on the device ({device})."


def sqnr_text(output: OutputError) -> str:
    """The signal-to-noise ratio of an output, or in words what has none."""
    if not output.finite:
        return "not finite"
    return "identical" if output.max_error == 0.0 else f"{output.sqnr_db:.1f} dB"


def quantization_sentence(report: Report) -> str:
    """How the quantized graph compares with the float one, in a line; empty if nothing was quantized."""
    if report.quantization is None:
        return ""
    check = report.quantization
    worst = min(check.outputs, key=lambda output: output.sqnr_db)
    scores = "".join(f", {name} {number(score)}" for name, score in check.scores.items())
    return (
        f"Quantized against float on {count(check.samples, f'{check.data} sample')}: SQNR {sqnr_text(worst)}, "
        f"largest error {number(worst.max_error)} ({worst.name}){scores}.{_drift_sentence(check.drift)}"
    )


def _drift_sentence(drift: Drift | None) -> str:
    if drift is None:
        return ""
    how = "a sequence" if drift.sequences == 1 else f"{drift.sequences} sequences"
    return (
        f" Each graph fed with its own states over {how} of {drift.longest} steps: SQNR {drift.first_db:.1f} dB in the "
        f"first quarter of the steps, {drift.last_db:.1f} dB in the last."
    )


def texts_sentence(report: Report) -> str:
    """How the texts that a language model writes compare with float's; empty for other models."""
    texts = report.texts
    if texts is None or not texts.texts:
        return ""
    place = "" if texts.first_difference is None else f" (median token {texts.first_difference})"
    return (
        f"Written behind the beginnings of {count(texts.texts, 'evaluation text')}, {texts.tokens} tokens each: "
        f"{texts.same:.0%} of a text until the first token that float does not write{place}; repeated sequences "
        f"{texts.repeated:.1%}, in float {texts.repeated_float:.1%}."
    )


def exact_match_sentences(report: Report) -> list[str]:
    """How many problems a language model solves beside float, a line for each set of them."""
    return [_exact_match_sentence(found) for found in report.exact_match]


def _exact_match_sentence(found: ExactMatch) -> str:
    if found.reason:
        return f"No problems of {found.dataset} were asked: {found.reason}."
    asked = "all problems" if found.problems == found.given else f"{found.problems} of the {found.given} problems"
    how = "asked as the chat template says" if found.chat else "without a chat template"
    lost = f"; of these {found.lost} not by the bundle" if found.lost else ""
    long = f" {found.too_long} more are longer than the context." if found.too_long else ""
    solved = f"{found.right} solved, {found.right_float} in float{lost}"
    return f"Exact match on {asked} of {found.dataset}, {how}: {solved}.{long}"


def tier_sentences(report: Report) -> list[str]:
    """What the bundle answers on each class of CPUs that was tried, a line each."""
    return [_tier_sentence(tier) for tier in report.tiers]


def npu_sentences(report: Report) -> list[str]:
    """What of the bundle was compiled for each NPU, a line each."""
    return [_npu_sentence(graph) for graph in report.npu]


def provider_sentence(report: Report) -> str:
    """What execution providers would take; empty of a report of before they were looked at."""
    if not report.providers:
        return ""
    taken = [f"{each.title} {each.taken} in {count(each.parts, 'part')}" for each in report.providers]
    return f"Of its {report.providers[0].nodes} operators take, as their documentation lists them: {'; '.join(taken)}."


def _tier_sentence(tier: TierCheck) -> str:
    name = f"On {tier.tier} ({tier.cpu})"
    if tier.failure:
        return f"{name}: {tier.failure}"
    off = "not finite" if tier.difference is None else f"off by {number(tier.difference, 2)} of the largest value"
    golden = f"{tier.matched} of {count(tier.golden, 'golden output')}"
    told = [f"{golden} ({off}, {tier.tolerance:g} allowed)"] if tier.golden else []
    return f"{name}: {'; '.join([*told, *map(_tier_accuracy, tier.accuracy), *_instructions(tier)])}."


def _npu_sentence(graph: NpuGraph) -> str:
    """`Compiled for SM8650 (Snapdragon 8 Gen 3): all of 40 operators, in 1 part.`"""
    left = ", ".join(f"{name} x{number}" for name, number in graph.left.items())
    taken = f"all of {graph.operators} operators"
    if left:
        taken = f"{graph.operators - sum(graph.left.values())} of {graph.operators} operators (on the CPU: {left})"
    return f"Compiled for {graph.soc} ({graph.title}): {taken}, in {count(graph.parts, 'part')}."


def _instructions(tier: TierCheck) -> list[str]:
    """`166.6 million instructions an inference, of which 42.5 mmla, 29.1 fmla, 28.1 load, 6.2 store (no latency)`."""
    if tier.counts is None:
        return [f"instructions not counted: {tier.uncounted}"] if tier.uncounted else []
    classes = {name: value for name, value in tier.counts if name != "total" and value}
    parts = ", ".join(f"{value / 1e6:.1f} {name}" for name, value in classes.items())
    return [f"{tier.counts.total / 1e6:,.1f} million instructions an inference, of which {parts} (this is no latency)"]


def _tier_accuracy(found: TierAccuracy) -> str:
    """`text-en/texts: drop 0.38 points on 16 of 1,808 samples, as on this machine (same answers)`."""
    same = "same answers" if found.same else f"answers differ: {found.sqnr_db:.1f} dB"
    beside = "as on this machine" if abs(found.drop - found.host_drop) < 5e-4 else f"{found.host_drop:.3g} here"
    return (
        f"{found.dataset}: drop {with_unit(f'{found.drop:.3g}', 'points')} on {found.samples} of {found.whole:,} "
        f"samples, {beside} ({same})"
    )


def plain(value: Json) -> str:
    """JSON data as a reader would write it down: `a, b`, `alpha 0.5, steps 200`, `yes`, `none`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return number(value) if isinstance(value, float) else str(value)
