"""A trained network on an NPU: compiled for it, and computed by QNN's host library (`edge devices setup qnn`)."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from benchmarks.cnn import RECIPES
from benchmarks.data import folder
from benchmarks.row import Measured, Row
from benchmarks.training_time import run_plan
from pipeline.bundle.contexts import compiled_session, read_context
from pipeline.bundle.records import bundle_graphs
from pipeline.checks.accuracy import measure_accuracy
from pipeline.checks.answers import ANSWERS, write_answers
from pipeline.config.job import Job
from pipeline.config.socs import soc_called
from pipeline.core.artifact import Artifact
from pipeline.plan.build import make_plan
from pipeline.runtime.behaviour import behaviour_in

_SOC, _TARGET = "SM8650", "phone-npu"


@cache
def _made() -> dict[str, Artifact]:
    """Keyword spotting in 8 bits, judged on 500 recordings of which a fifth calibrates."""
    samples = str(folder() / "kws" / "kws_even.npz")
    job = Job(
        model=f"{folder() / 'models.py'}:kws",
        target=_TARGET,
        recipe=str(RECIPES / "kws-npu.toml"),
        calibration_data=samples,
        eval_data=(samples,),
    )
    return run_plan(make_plan(job))


def drop() -> Measured:
    """Points of accuracy lost on the NPU, beside those that the portable graph loses here."""
    made = _made()
    evaluation, reference = made["samples.evaluation"].path, made["reference"].path
    behaviour = behaviour_in(made)
    session = compiled_session(bundle_graphs(made["bundle"].path), _SOC)
    with tempfile.TemporaryDirectory() as there:
        write_answers(session, behaviour, evaluation, Path(there))
        (on_npu,) = measure_accuracy(behaviour, evaluation, reference, Path(there))
    (here,) = measure_accuracy(behaviour, evaluation, reference, made[ANSWERS].path)
    return Measured(on_npu.drop, here.drop)


def parts() -> Measured:
    """Pieces of the graph that the NPU runs, beside operators that stay on the CPU (the roundings at its ends)."""
    found = read_context(bundle_graphs(_made()["bundle"].path), soc_called(_SOC))
    return Measured(found.parts, found.left_in_all)


ROWS = [
    Row("npu.kws.drop", "points", "the same on this machine's CPU", drop),
    Row("npu.kws.parts", "parts", "operators on the CPU", parts),
]
