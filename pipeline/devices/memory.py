"""Load time and peaks of resident memory, over several processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from pipeline.core.report_types import FitResult, MemoryResult
from pipeline.core.types import Doubt, Evidence, Figure, Json
from pipeline.devices.runner import LOAD_SECONDS, Runner, lacking
from pipeline.devices.worker import Fit, Language, Memory, Subject

BY_PEAK = "peak of anonymous memory, without a limit"
"""How it is told what fits where nothing can be limited."""
_LARGER = (1.05, 1.1, 1.25, 1.5, 2.0, 3.0)
"""Times the limit."""
_FEW_PROCESSES = 3
_REPEAT = "Run `edge check` on the bundle again, or set a limit that is further from the figure."


def measure_memory(
    runner: Runner, subject: Subject, language: Language | None = None, processes: int = 3
) -> MemoryResult:
    """Load time and peaks: the median of fresh processes, and the extremes as the interval. Where the system does not
    tell the peaks, the reason stands in their place. `language`: of a language model, whose context is filled."""
    request = Memory(subjects=(subject,), language=language)
    results = [runner.run(request, LOAD_SECONDS) for _ in range(processes)]
    return memory_result(results, runner.evidence, timed=not lacking(runner, "times"))


def memory_result(results: Sequence[Mapping[str, Json]], evidence: Evidence, timed: bool = True) -> MemoryResult:
    """The report's record of what the worker's `memory` told in several processes. `timed`: whether times count."""

    def figure(name: str, unit: str) -> Figure:
        return extremes([result[name] for result in results], unit, evidence)

    def part(phase: str, name: str) -> Figure | None:
        parts = [result.get(f"{phase}_parts_mb") for result in results]
        return None if None in parts else extremes([each[name] for each in parts if each], "MB", evidence)

    reason = next((result["reason"] for result in results if result["reason"]), "")
    return MemoryResult(
        load_ms=figure("load_ms", "ms") if timed else None,
        load_peak_mb=None if reason else figure("load_peak_mb", "MB"),
        run_peak_mb=None if reason else figure("run_peak_mb", "MB"),
        load_anonymous_mb=part("load", "anonymous"),
        load_file_mb=part("load", "file"),
        run_anonymous_mb=part("run", "anonymous"),
        run_file_mb=part("run", "file"),
        how=next((result.get("how", "") for result in results), ""),
        reason=reason,
    )


def measure_fit(
    runner: Runner, subject: Subject, limit_mb: float, memory: MemoryResult, language: Language | None = None
) -> FitResult | None:
    """Whether the model loads and runs under a limit, and if not, under which larger one. None where neither a limit
    nor the peak of anonymous memory (`memory`) can tell."""

    def told(limit: float) -> dict[str, Json]:
        return runner.run(Fit(subjects=(subject,), limit_mb=limit, language=language), LOAD_SECONDS)

    found = told(limit_mb)
    if found["fits"] is None:
        return _by_peak(limit_mb, memory, found["reason"])
    if found["fits"]:
        return FitResult(limit_mb=limit_mb, fits=True, how=found["how"])
    larger = (limit_mb * factor for factor in _LARGER)
    needs = next((limit for limit in larger if told(limit)["fits"]), None)
    return FitResult(limit_mb=limit_mb, fits=False, how=found["how"], needs_mb=needs)


def _by_peak(limit_mb: float, memory: MemoryResult, reason: str) -> FitResult | None:
    peaks = [figure.value for figure in (memory.load_anonymous_mb, memory.run_anonymous_mb) if figure is not None]
    if not peaks:
        return None
    return FitResult(limit_mb=limit_mb, fits=max(peaks) <= limit_mb, how=BY_PEAK, reason=reason)


def extremes(values: Sequence[float], unit: str, evidence: Evidence) -> Figure:
    """The doubt reaches beyond the extremes by the distance between them: for three values that is a 95 % interval of
    their mean (1.30 ranges to either side; Lord, The use of range in place of standard deviation in the t test,
    Biometrika 1947), and wider than one for more."""
    note = f"median and extremes of {len(values)} processes"
    low, high = min(values), max(values)
    reach = high - low
    doubt = Doubt(low=low - reach, high=high + reach, why=note, remedy=_REPEAT)
    if len(values) < _FEW_PROCESSES:
        doubt = Doubt(why=f"{len(values)} processes are too few for an interval, which takes {_FEW_PROCESSES}")
    return Figure(value=median(values), unit=unit, evidence=evidence, low=low, high=high, note=note, doubt=doubt)
