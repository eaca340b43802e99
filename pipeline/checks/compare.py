"""Stage function: the quantized graph held against the float graph that it was made from, output by output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.config.target import Runtime
from pipeline.core.report_types import Drift, OutputError, QuantizationCheck
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Figure, computed
from pipeline.data.samples import Samples, evaluation_folders, open_samples
from pipeline.graph.files import graphs_in
from pipeline.metrics.outputs import LIMIT_DB, ratio_db
from pipeline.runtime.behaviour import behaviour_in
from pipeline.runtime.session import float_runtime, make_session
from pipeline.runtime.states import run_in_order
from pipeline.tasks.output_kind import OutputKind
from pipeline.tasks.registry import of_width

SAMPLES = 64


@dataclass
class ErrorSums:
    """Sums over the values of one output, so that memory does not grow with the samples (float64)."""

    values: int = 0
    total: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    finite: bool = True
    equal: int | None = None
    reshaped: int = 0

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Add one sample's outputs. Of arrays of two shapes (numbers of detections differ) nothing is kept; where both
        are NaN, or the same infinity, they are equal."""
        same_shape = reference.shape == other.shape
        reference, other = _without_equal(reference, other) if same_shape else (reference, other)
        if not (np.isfinite(other).all() and np.isfinite(reference).all()):
            self.finite = False
            return
        if not same_shape:
            self.reshaped, other = self.reshaped + 1, np.zeros_like(reference)
        if reference.dtype.kind != "f":
            self.equal = (self.equal or 0) + int((reference == other).sum() if same_shape else 0)
        exact = reference.astype(np.float64)
        difference = exact - other
        self.values += exact.size
        self.total += float(exact.sum())
        self.signal += float(np.square(exact).sum())
        self.noise += float(np.square(difference).sum())
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))

    @property
    def sqnr_db(self) -> float:
        """10 log10(sum ref^2 / sum (ref - other)^2), within +-`LIMIT_DB`; of integers and booleans, all values over
        those that differ."""
        if not self.finite:
            return -LIMIT_DB
        if self.equal is not None:
            return ratio_db(self.values, self.values - self.equal)
        return ratio_db(self.signal, self.noise)

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
            reshaped=self.reshaped,
            agreement=None if self.equal is None else self.equal / max(self.values, 1),
        )


def _without_equal(reference: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Without the places where both arrays are NaN or the same infinity."""
    if np.isfinite(reference).all():
        return reference, other
    kept = np.isfinite(reference) | ((reference != other) & ~(np.isnan(reference) & np.isnan(other)))
    return reference[kept], other[kept]


class DriftSums:
    """The judged rows' errors in the first and the last quarter of the steps of each sequence."""

    def __init__(self, samples: Samples) -> None:
        self._places = [(step, length) for length in samples.sequences for step in range(length)]
        self._lengths, self._first, self._last = samples.sequences, ErrorSums(), ErrorSums()

    def add(self, place: int, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Add the rows of the sample at `place`."""
        step, length = self._places[place] if self._places else (0, 0)
        if 4 * step < length:
            self._first.add(reference, other)
        if 4 * step >= 3 * length > 0:
            self._last.add(reference, other)

    def result(self) -> Drift | None:
        """None where samples are no steps."""
        if not self._places:
            return None
        return Drift(
            sequences=len(self._lengths),
            longest=max(self._lengths),
            first_db=self._first.sqnr_db,
            last_db=self._last.sqnr_db,
        )


@dataclass
class _Judged:
    """The rows of both graphs that the task judges."""

    reference: list[NDArray[Any]] = field(default_factory=list)
    other: list[NDArray[Any]] = field(default_factory=list)

    def scores(self, kind: OutputKind) -> dict[str, float]:
        """The fidelity of its kind; none if there are too few rows for it, or an output is not finite."""
        if not all(np.isfinite(rows).all() for rows in self.other):
            return {}
        reference, other = kind.join(self.reference), kind.join(self.other)
        if len(reference) < kind.smallest:
            return {}
        return of_width(kind, reference.shape[-1]).fidelity(reference, other).scores


def run(context: StageContext) -> StageMetadata:
    """The metadata are the record `QuantizationCheck`; nothing is written. A bad result is no error: the report says
    it, and a budget can gate it."""
    kind, source = behaviour_in(context.inputs).kind, context.config["data"]
    folder = context.inputs["samples"].path
    folder = folder if source == "calibration" else evaluation_folders(folder)[0]
    samples = open_samples(folder)
    samples = samples if samples.states else open_samples(folder, SAMPLES)  # errors of sequences add up to their ends
    of_float, model = (graphs_in(context.inputs[role].path) for role in ("float", "model"))
    sessions = [make_session(of_float, float_runtime(of_float)), make_session(model, Runtime())]
    names = _comparable(*(session.get_outputs() for session in sessions))
    sums, judged = {name: ErrorSums() for name in names}, _Judged()
    drift, judged_names = DriftSums(samples), kind.names or names[:1]
    pairs = zip(*(run_in_order(session, samples, names) for session in sessions), strict=True)
    for place, ((row, reference), (_, other)) in enumerate(pairs):
        for name, total in sums.items():
            total.add(reference[name], other[name])
        rows = [kind.rows({name: found[name] for name in judged_names}, row) for found in (reference, other)]
        judged.reference.append(rows[0])
        judged.other.append(rows[1])
        drift.add(place, *rows)
        context.progress(place + 1, len(samples))
    outputs = tuple(sums[name].result(name) for name in names)
    record = QuantizationCheck(
        data=source, samples=len(samples), outputs=outputs, scores=judged.scores(kind), drift=drift.result()
    )
    return record.model_dump(mode="json")


def _comparable(reference: Sequence[ort.NodeArg], other: Sequence[ort.NodeArg]) -> list[str]:
    """The outputs that both graphs have in one dtype: keys and values that are stored in fewer bits are codes."""
    types = {entry.name: entry.type for entry in other}
    return [entry.name for entry in reference if entry.name not in types or types[entry.name] == entry.type]


def worst_output(check: QuantizationCheck) -> OutputError:
    return min(check.outputs, key=lambda output: output.sqnr_db)


def sqnr_figure(check: QuantizationCheck) -> Figure:
    """What the budget `min_sqnr_db` is held against: the output that lost most."""
    worst = worst_output(check)
    return computed(worst.sqnr_db, "dB", f"worst output: {worst.name}")


def warnings(check: QuantizationCheck) -> tuple[str, ...]:
    """What every reader must be told: the graph is broken, or noise is louder than the signal."""
    broken = [output.name for output in check.outputs if not output.finite]
    reshaped = [output for output in check.outputs if output.reshaped]
    loud = [output for output in check.outputs if output.finite and output.sqnr_db < 0]
    return (
        *(f"BROKEN: the quantized graph's output {name} is not finite on {check.data} samples." for name in broken),
        *(
            f"BROKEN: quantization noise in output {output.name} is larger than the output itself "
            f"(SQNR {output.sqnr_db:.1f} dB)."
            for output in loud
        ),
        *(
            f"The quantized graph's output {output.name} has another shape than float's on {output.reshaped} of "
            f"{check.samples} {check.data} samples."
            for output in reshaped
        ),
    )
