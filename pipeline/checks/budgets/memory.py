"""Budgets on what a session takes when it is made and run: time to load, and resident memory."""

from __future__ import annotations

from pipeline.checks.budgets.metric import Absent, Explained, Metric, Outcome, Tolerance, not_there
from pipeline.checks.explain import any_of, sizes_in_other_formats
from pipeline.checks.measurements import Measurements

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
        return max(peaks, key=lambda figure: figure.value)
    tells = found.case.giving("memory").info().system.startswith("Linux")
    return Absent(memory.reason if tells else f"{memory.reason}; Linux tells it", applies=tells)


def _explain_peak(limit: float, found: Measurements) -> Explained:
    memory = found.records.memory
    peaks = {"load": memory.load_peak_mb, "run": memory.run_peak_mb} if memory else {}
    parts = tuple(f"{name} peak {figure.value:.1f} MB" for name, figure in peaks.items() if figure)
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
