"""The budget on quantization noise, as the stage `compare` found it."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.checks.budgets.metric import Absent, Explained, Metric, Outcome
from pipeline.checks.compare import sqnr_figure
from pipeline.checks.explain import any_of, finer_formats
from pipeline.checks.measurements import Measurements
from pipeline.core.report_types import DatasetAccuracy
from pipeline.tasks.output_kind import OutputKind

NAME = "min_sqnr_db"


def _sqnr(found: Measurements) -> Outcome:
    check = found.records.quantization
    return Absent("no quantized graph was compared with its float one") if check is None else sqnr_figure(check)


def _explain(_: float, found: Measurements) -> Explained:
    finer = finer_formats(found)
    return (), f"Try {any_of(finer)}." if finer else ""


def _on_set(_: OutputKind) -> Callable[[DatasetAccuracy], float]:
    return lambda result: result.scores[NAME]


SQNR = Metric(
    "dB",
    "at least",
    "signal over quantization noise, worst output, on calibration samples",
    _sqnr,
    _explain,
    on_set=_on_set,
)
