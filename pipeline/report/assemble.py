"""Puts plan, outcomes and measurements together into the typed report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.checks.budgets import outcomes
from pipeline.checks.budgets.metric import Absent, Outcome
from pipeline.checks.compare import warnings
from pipeline.checks.measurements import Measurements
from pipeline.core.report_types import Comparison, HostInfo, Report, TensorFormat, Trial
from pipeline.core.types import Figure
from pipeline.devices.host_info import host_info, versions
from pipeline.formats.scheme import SchemeFormats
from pipeline.gate.baseline import Baseline, regressions
from pipeline.gate.gate import judge_budgets, overall
from pipeline.report.calibration import range_warnings
from pipeline.report.comparison import text as comparison_text
from pipeline.report.losses import loss_warnings
from pipeline.report.subject import Subject
from pipeline.report.text import count


def assemble(
    subject: Subject,
    found: Measurements,
    trials: Sequence[Trial],
    baseline: Baseline | None,
    comparison: Comparison | None = None,
) -> Report:
    """Judge the budgets and build the report. A `comparison` warns, and changes no verdict."""
    told = outcomes(found)
    budgets = judge_budgets(found, told)
    figures = {name: outcome for name, outcome in told.items() if isinstance(outcome, Figure)}
    if baseline is not None:
        budgets += regressions(baseline, figures)
    verdict, exit_code = overall(budgets)
    host = host_info()
    formats = SchemeFormats(subject.scheme, subject.formats)
    return Report(
        **_subject_fields(subject),
        **dict(found.records),
        target=found.case.target.name,
        target_title=found.case.target.title,
        verdict=verdict,
        exit_code=int(exit_code),
        budgets=budgets,
        figures=figures,
        trials=tuple(trials),
        host=host,
        versions=versions(),
        notes=(
            *_quantization_notes(found),
            *found.notes,
            *subject.notes,
            *_format_notes(formats, subject.formats),
            *_batch_notes(formats),
            *formats.cpu_notes(vnni=not _sums_pairs(found.case.giving("answers").info())),
        ),
        warnings=(
            *found.warnings,
            *_failures(told),
            *loss_warnings(found, told),
            *comparison_text.warnings(comparison),
            *range_warnings(found.records.ranges),
        ),
        comparison=comparison,
    )


def _sums_pairs(machine: HostInfo) -> bool:
    """Whether its CPU sums 8-bit products in pairs of 16 bits: none of Arm, and no x86 with VNNI."""
    arm = any(name in machine.system.lower() for name in ("aarch64", "arm"))
    return not arm and not {"avx512_vnni", "avx_vnni"} & set(machine.isa)


def _failures(told: Mapping[str, Outcome]) -> list[str]:
    """The metrics of packages that failed, and that no budget of the target asks for."""
    failed = {name: outcome.reason for name, outcome in told.items() if isinstance(outcome, Absent) and outcome.failed}
    return [f"There is no figure of {name}: {reason}." for name, reason in failed.items()]


def _subject_fields(subject: Subject) -> dict[str, Any]:
    return {name: getattr(subject, name) for name in Subject.__dataclass_fields__ if name != "notes"}


def _quantization_notes(found: Measurements) -> tuple[str, ...]:
    check = found.records.quantization
    return () if check is None else warnings(check)


def _format_notes(formats: SchemeFormats, tensors: Sequence[TensorFormat]) -> list[str]:
    """How many weights have which format, where a scheme has overrides; else its words say it."""
    if not formats.patterns or not tensors:
        return []
    parts = []
    for name in dict.fromkeys(tensor.format for tensor in tensors):
        stored = [tensor for tensor in tensors if tensor.format == name]
        parts.append(f"{name} {count(len(stored), 'weight')} ({sum(t.megabytes for t in stored):.3g} MB)")
    told = [f"Number formats by the scheme and its overrides: {', '.join(parts)}; report.json lists every weight."]
    if formats.idle_overrides:
        told.append(
            f"No weight is stored as these overrides say: {', '.join(formats.idle_overrides)}. Weights that they match "
            "are decided by a later pattern, or stay in float: the report lists why."
        )
    return told


def _batch_notes(formats: SchemeFormats) -> list[str]:
    """What a reader must know before trusting a score in other batches."""
    if not formats.finds_ranges_at_run_time:
        return []
    whose, helps = "activations", "Calibrated ranges (w8a8, w4a8-static) do not have this."
    if formats.needs_ranges:
        whose, helps = (
            "some activations (LSTMs, overrides)",
            "Layers in int8-stored ([scheme.overrides]) do not have this.",
        )
    return [
        f"Ranges of {whose} are found at run time, over the whole batch: the answer to a sample depends on what runs "
        f"beside it. {helps}"
    ]
