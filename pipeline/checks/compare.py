"""Stage function: the quantized graph held against the float graph that it was made from, output by output."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.reference import evaluation_folders
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError
from pipeline.core.report_types import OutputError, QuantizationCheck
from pipeline.core.stage import StageContext
from pipeline.core.types import Figure, Json, computed
from pipeline.data.samples import open_samples
from pipeline.runtime.behaviour import behaviour_in
from pipeline.runtime.session import make_session
from pipeline.tasks.registry import OUTPUTS, compute_fidelity
from pipeline.trace.graph import MODEL

SAMPLES = 64
LIMIT_DB = 300.0
"""Stands for identical outputs; minus it, for outputs that are not finite: JSON has no infinity."""


@dataclass
class ErrorSums:
    """Sums over the values of one output, so that memory does not grow with the samples (float64)."""

    values: int = 0
    total: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    finite: bool = True

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Add one sample's outputs, two arrays of one shape."""
        if not np.isfinite(other).all():
            self.finite = False
            return
        exact = reference.astype(np.float64)
        difference = exact - other
        self.values += exact.size
        self.total += float(exact.sum())
        self.signal += float(np.square(exact).sum())
        self.noise += float(np.square(difference).sum())
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))

    @property
    def sqnr_db(self) -> float:
        """10 log10(sum ref^2 / sum (ref - other)^2), within +-`LIMIT_DB`."""
        if not self.finite:
            return -LIMIT_DB
        if self.noise == 0.0:
            return LIMIT_DB
        ratio = self.signal / self.noise
        return max(-LIMIT_DB, min(LIMIT_DB, 10.0 * math.log10(ratio))) if ratio else -LIMIT_DB

    @property
    def std(self) -> float:
        """Standard deviation of the reference's values."""
        mean = self.total / max(self.values, 1)
        return math.sqrt(max(self.signal / max(self.values, 1) - mean**2, 0.0))

    def result(self, name: str) -> OutputError:
        size = math.sqrt(self.signal / max(self.values, 1))  # of an output that is the same everywhere
        relative = self.largest / (self.std or size or 1.0)
        return OutputError(
            name=name,
            finite=self.finite,
            sqnr_db=self.sqnr_db,
            max_error=self.largest,
            max_error_in_std=relative,
        )


@dataclass
class _Judged:
    """The rows of both graphs that the task judges."""

    reference: list[NDArray[Any]] = field(default_factory=list)
    other: list[NDArray[Any]] = field(default_factory=list)

    def scores(self, family: str) -> dict[str, float]:
        """The family's fidelity; none if there are too few rows for it, or an output is not finite."""
        reference, other = np.concatenate(self.reference), np.concatenate(self.other)
        if len(reference) < OUTPUTS.get(family).smallest or not np.isfinite(other).all():
            return {}
        return compute_fidelity(family, reference, other).scores


def run(context: StageContext) -> dict[str, Json]:
    """Facts are the record `QuantizationCheck`; nothing is written. A bad result is not an error: the report says it,
    and a budget can gate it."""
    kind, source = OUTPUTS.get(behaviour_in(context.inputs).family), context.config["data"]
    folder = context.inputs["samples"].path
    samples = open_samples(folder if source == "calibration" else evaluation_folders(folder)[0], SAMPLES)
    sessions = [make_session(context.inputs[role].file(MODEL), Runtime()) for role in ("float", "model")]
    names = [entry.name for entry in sessions[0].get_outputs()]
    sums, judged = {name: ErrorSums() for name in names}, _Judged()
    inputs = [entry.name for entry in sessions[0].get_inputs()]
    for done, row in enumerate(samples.select(inputs), start=1):
        pair = [dict(zip(names, session.run(names, row), strict=True)) for session in sessions]
        _add(sums, pair[0], pair[1], done)
        judged.reference.append(kind.rows(pair[0], row))
        judged.other.append(kind.rows(pair[1], row))
        context.progress(done, len(samples))
    outputs = tuple(sums[name].result(name) for name in names)
    record = QuantizationCheck(data=source, samples=len(samples), outputs=outputs, scores=judged.scores(kind.name))
    return record.model_dump(mode="json")


def _add(sums: dict[str, ErrorSums], reference: dict[str, Any], other: dict[str, Any], done: int) -> None:
    for name, total in sums.items():
        if not np.isfinite(reference[name]).all():
            raise StageError(f"The float model's output {name!r} is not finite on sample {done}.")
        total.add(reference[name], other[name])


def worst_output(check: QuantizationCheck) -> OutputError:
    return min(check.outputs, key=lambda output: output.sqnr_db)


def sqnr_figure(check: QuantizationCheck) -> Figure:
    """What the budget `min_sqnr_db` is held against: the output that lost most."""
    worst = worst_output(check)
    return computed(worst.sqnr_db, "dB", f"worst output: {worst.name}")


def warnings(check: QuantizationCheck) -> tuple[str, ...]:
    """What every reader must be told: the graph is broken, or noise is louder than the signal."""
    broken = [output.name for output in check.outputs if not output.finite]
    loud = [output for output in check.outputs if output.finite and output.sqnr_db < 0]
    return (
        *(f"BROKEN: the quantized graph's output {name} is not finite on {check.data} samples." for name in broken),
        *(
            f"BROKEN: quantization noise in output {output.name} is larger than the output itself "
            f"(SQNR {output.sqnr_db:.1f} dB)."
            for output in loud
        ),
    )
