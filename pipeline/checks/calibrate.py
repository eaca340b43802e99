"""What operators cost on a device: measured on small networks, and fitted to their times."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.checks.calibration_probes import probes
from pipeline.checks.coverage import Ran
from pipeline.checks.left_in_float import Reasons, Stored
from pipeline.checks.timing import measure_latency
from pipeline.checks.work import work_of
from pipeline.config.target import Calibration, Costs, Target
from pipeline.core.errors import UsageError
from pipeline.core.types import Progress, silent
from pipeline.devices.ort_profile import profile
from pipeline.devices.runner import Runner, lacking, subject_of
from pipeline.forecast.latency import known, milliseconds
from pipeline.forecast.work import KINDS, Work
from pipeline.runtime.feeds import write_feed

_SECONDS = 6.0
"""Of each network: all take less than two minutes."""
_SCALE = np.array([1e9 if not kind.endswith("calls") else 1e3 for kind in KINDS])
"""Units of a cost in a millisecond."""
_UNDISTURBED = 0.1
"""Share of the inferences that other programs are taken to leave alone."""
WORST = 0.3
"""Median error from which the times are no device's, but a loaded machine's: by CPU time they come to 0.23."""
_NOISE, _SPREAD, _STEPS = 0.1, 1.0, 50
"""Standard deviations (log): of a time around what the costs make of it, of a cost around that of published devices."""


@dataclass(frozen=True)
class Probed:
    """A network that was measured: its work, the milliseconds that it took, and those that the fitted costs make."""

    name: str
    work: Work
    ms: float
    fitted_ms: float = 0.0


def calibrate(runner: Runner, target: Target, progress: Progress = silent) -> tuple[Calibration, list[Probed]]:
    """Costs on the runner's machine with the target's threads, and the networks that they are fitted to.

    UsageError if the runner has no times that say anything.
    """
    if reason := lacking(runner, "times"):
        raise UsageError(f"The runner {target.runner!r} cannot calibrate: {reason}.", "Name the device itself.")
    found, networks = [], probes()
    for done, (name, (model, feed)) in enumerate(networks.items()):
        progress(done, len(networks))
        with tempfile.TemporaryDirectory(prefix="edge-calibrate-") as scratch:
            file, inputs, optimized = (Path(scratch) / each for each in ("probe.onnx", "inputs.npz", "optimized.onnx"))
            onnx.save(model, file)
            write_feed(inputs, feed)
            subject = subject_of(file, inputs, target.runtime)
            records = profile(runner, subject, optimized, runs=2)
            ran = Ran(onnx.load(optimized, load_external_data=False), records, Stored(file, Reasons()))
            took = measure_latency(runner, subject, max_seconds=_SECONDS)
        found.append(Probed(name, work_of([ran]), float(np.quantile(took.samples_ms, _UNDISTURBED))))
    progress(len(networks), len(networks))
    costs = fitted([each.work for each in found], [each.ms for each in found])
    probed = [Probed(each.name, each.work, each.ms, sum(milliseconds(costs, each.work))) for each in found]
    return Calibration(threads=target.runtime.threads, costs=costs, source=_source(runner)), probed


def fitted(works: Sequence[Work], ms: Sequence[float]) -> Costs:
    """Costs of largest posterior probability: relative errors and costs are log-normal, these around those of published
    devices. Gauss-Newton steps, damped so that no cost changes more than e-fold in one."""
    amounts = np.array([[getattr(work, kind) for kind in KINDS] for work in works]) / _SCALE
    each = np.log([[getattr(costs, kind) for kind in KINDS] for costs in known().devices])
    center = each.mean(axis=0)
    point, wanted = center.copy(), np.log(ms)
    for _ in range(_STEPS):
        parts = amounts * np.exp(point)
        total = parts.sum(axis=1)
        jacobian = np.vstack([parts / total[:, None] / _NOISE, np.eye(len(KINDS)) / _SPREAD])
        residuals = np.concatenate([(np.log(total) - wanted) / _NOISE, (point - center) / _SPREAD])
        point = point - np.clip(np.linalg.lstsq(jacobian, residuals)[0], -1, 1)
    return Costs(**{kind: _rounded(value) for kind, value in zip(KINDS, np.exp(point), strict=True)})


def median_error(probed: Sequence[Probed]) -> float:
    """Of the networks, each predicted from costs that are fitted to the others."""
    errors: npt.NDArray[np.float64] = np.array([_left_out(probed, place) for place in range(len(probed))])
    return float(np.median(np.abs(np.exp(errors) - 1)))


def _left_out(probed: Sequence[Probed], place: int) -> float:
    others = [each for number, each in enumerate(probed) if number != place]
    costs = fitted([each.work for each in others], [each.ms for each in others])
    return math.log(sum(milliseconds(costs, probed[place].work)) / probed[place].ms)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _source(runner: Runner) -> str:
    there = runner.info()
    day = datetime.now(UTC).date().isoformat()
    return f"measured by `edge devices calibrate` on {there.cpu}, ONNX Runtime {there.onnxruntime}, {day}"
