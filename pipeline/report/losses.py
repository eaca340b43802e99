"""What compression was for and did not bring: a bundle that ended slower or larger than the float model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.checks.budgets.metric import METRICS, Outcome
from pipeline.checks.explain import SHOWN, sizes_in_other_formats
from pipeline.checks.measurements import Measurements
from pipeline.config.target import Budget
from pipeline.core.types import Figure, Verdict
from pipeline.formats.scheme import SchemeFormats
from pipeline.gate.gate import judge_budget

_SPEED = "min_speedup"


def loss_warnings(found: Measurements, told: Mapping[str, Outcome]) -> list[str]:
    """Warnings with what dominates and what would help; of a speed only where no budget says it anyway."""
    return [*_slower(found, told), *_larger(found)]


def _slower(found: Measurements, told: Mapping[str, Outcome]) -> list[str]:
    figure = told.get(_SPEED)
    if not isinstance(figure, Figure) or _SPEED in found.case.target.budgets:
        return []
    budget = Budget(limit=1, required=False, evidence=(figure.evidence,), source="the float model")
    if judge_budget(_SPEED, budget, figure, found).verdict is not Verdict.FAIL:
        return []
    parts, remedy = METRICS.get(_SPEED).explain(1, found)
    return [f"The bundle is slower than the float model: {figure.value:.3g}x. {'; '.join(parts)}. {remedy}".strip()]


def _larger(found: Measurements) -> list[str]:
    reference = found.case.reference
    if reference is None or not SchemeFormats(found.case.scheme).rounds:
        return []
    stored, before = _megabytes(found.case.bundle), reference.megabytes
    if stored < before:
        return []
    largest = ", ".join(f"{group.name} ({group.megabytes:.3g} MB)" for group in found.records.tensors[:SHOWN])
    smaller = {name: size for name, size in sizes_in_other_formats(found).items() if size < found.megabytes}
    named = min(smaller, key=lambda name: smaller[name]) if smaller else ""
    helps = (
        f"{named} would bring the bundle to about {smaller[named]:.3g} MB" if named else "the scheme fp32 is smallest"
    )
    return [
        f"The model takes {stored:.3g} MB in the bundle and {before:.3g} MB in float: the scheme "
        f"{found.case.scheme.name} saves nothing here. The largest: {largest}; {helps}."
    ]


def _megabytes(bundle: Path) -> float:
    """Of its graphs and their weights."""
    return sum(file.stat().st_size for file in bundle.glob("*.onnx*")) / 1e6
