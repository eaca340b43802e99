"""Budgets on what a session takes when it is made and run: time to load, and resident memory."""

from __future__ import annotations

from pipeline.checks.budgets.metric import Absent, Explained, Metric, Outcome, Tolerance, not_there
from pipeline.checks.explain import any_of, sizes_in_other_formats
from pipeline.checks.measurements import Measurements
from pipeline.core.report_types import FitResult, MemoryResult
from pipeline.core.types import Figure
from pipeline.devices.memory import BY_PEAK

_MOST = 3.0
"""Times the limit: what is said of a bundle that keeps within no limit that was tried."""
PREPACKING = "session.disable_prepacking"


def _load(found: Measurements) -> Outcome:
    memory = found.records.memory
    return memory.load_ms if memory and memory.load_ms else not_there(found, "times")


def _peak(found: Measurements) -> Outcome:
    memory = found.records.memory
    if memory is None:
        return not_there(found, "memory")
    peaks = [peak for peak in (memory.load_peak_mb, memory.run_peak_mb) if peak is not None]
    if peaks:
        return _tried(max(peaks, key=lambda figure: figure.value), memory)
    tells = found.case.giving("memory").info().system.startswith("Linux")
    return Absent(memory.reason if tells else f"{memory.reason}; Linux tells it", applies=tells)


def _parts(memory: MemoryResult | None, phase: str) -> str:
    """`: 12.0 MB anonymous, 40.1 MB file-backed`."""
    anonymous, file = (getattr(memory, f"{phase}_{part}_mb", None) for part in ("anonymous", "file"))
    return f": {anonymous.value:.1f} MB anonymous, {file.value:.1f} MB file-backed" if anonymous and file else ""


def _tried(peak: Figure, memory: MemoryResult) -> Figure:
    """The peak, with what came of a run under the budget's limit: where that ended it, the limit that it kept within is
    what it needs, though no more was seen to be resident."""
    fit = memory.fit
    if fit is None:
        return peak
    if fit.fits or fit.how == BY_PEAK or peak.value > fit.limit_mb:
        return peak.model_copy(update={"note": "; ".join(filter(None, (peak.note, fit_words(fit))))})
    needs = fit.needs_mb or _MOST * fit.limit_mb
    return peak.model_copy(update={"value": needs, "low": None, "high": None, "doubt": None, "note": fit_words(fit)})


def fit_words(fit: FitResult) -> str:
    """`loads and runs under a limit of 150 MB (cgroup v2)`."""
    where = f"a limit of {fit.limit_mb:g} MB ({fit.how})"
    if fit.how == BY_PEAK:
        return f"{'within' if fit.fits else 'beyond'} {where}: {fit.reason}"
    if fit.fits:
        return f"loads and runs under {where}"
    needs = "under none that was tried" if fit.needs_mb is None else f"under {fit.needs_mb:g} MB"
    return f"ended under {where}; it runs {needs}"


def _explain_peak(limit: float, found: Measurements) -> Explained:
    memory = found.records.memory
    peaks = {"load": memory.load_peak_mb, "run": memory.run_peak_mb} if memory else {}
    parts = tuple(
        f"{name} peak {figure.value:.1f} MB{_parts(memory, name)}" for name, figure in peaks.items() if figure
    )
    if memory and memory.fit:
        parts += (fit_words(memory.fit),)
    stored = sum(group.megabytes for group in found.records.tensors)
    if stored > limit:
        options = ["pruning"] if found.takes_passes else []
        if any(size < found.megabytes for size in sizes_in_other_formats(found).values()):
            options.insert(0, "a smaller format")
        else:
            options.append("a smaller model")
        return parts, f"The stored tensors alone take {stored:.1f} MB: {any_of(options)} has to come first."
    if found.records.decoding is not None:
        return parts, "Keys and values of the whole context count: try a smaller context_length in the target's shape."
    if found.case.target.runtime.session_config.get(PREPACKING) == "1":
        return parts, ""
    return parts, f'Try session_config = {{ "{PREPACKING}" = "1" }} in the target: slower, but smaller.'


LOAD = Metric("ms", "at most", "time to make the session", _load)
PEAK = Metric(
    "MB",
    "at most",
    "higher of load peak and run peak, over the process before",
    _peak,
    _explain_peak,
    Tolerance(share=0.10),
)
