"""Load time and peaks of resident memory, over several processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from pipeline.core.report_types import MemoryResult
from pipeline.core.types import Doubt, Evidence, Figure, Json
from pipeline.devices.runner import LOAD_SECONDS, Runner, lacking
from pipeline.devices.worker import Language, Memory, Subject

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

    reason = next((result["reason"] for result in results if result["reason"]), "")
    return MemoryResult(
        load_ms=figure("load_ms", "ms") if timed else None,
        load_peak_mb=None if reason else figure("load_peak_mb", "MB"),
        run_peak_mb=None if reason else figure("run_peak_mb", "MB"),
        reason=reason,
    )


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
