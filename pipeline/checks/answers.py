"""A bundle's outputs on the evaluation sets: one sample at a time as most apps run it, and in batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.config.target import Runtime, Target
from pipeline.core.errors import StageError, first_line
from pipeline.core.stage import Stage, StageContext, StageMetadata
from pipeline.core.types import Progress, silent
from pipeline.data.samples import Samples, evaluation_folders, open_samples, read_dataset
from pipeline.devices.host_info import host_info
from pipeline.devices.host_runner import HOST
from pipeline.devices.runner import Runner, subject_of
from pipeline.devices.runner_session import RunnerSession
from pipeline.graph.files import Graphs, graphs_in
from pipeline.runtime.batches import MOST_VALUES, takes_batches
from pipeline.runtime.behaviour import PROBE, Behaviour, behaviour_in
from pipeline.runtime.infer import judged_outputs
from pipeline.runtime.session import SESSION_ERRORS, parallel_session

Array = NDArray[Any]
BATCH = 16
ALL_CORES = 0
"""As a number of threads, to ONNX Runtime."""
ANSWERS = "answers"
"""The stage, and the role in which later ones have it."""


@dataclass(frozen=True)
class Outputs:
    """The judged rows of one set: of samples that ran alone, and in batches where that was measured too."""

    alone: Array
    batched: Array | None = None

    def part(self, rows: NDArray[Any]) -> Outputs:
        return Outputs(self.alone[rows], None if self.batched is None else self.batched[rows])


def answers_stage(model: str, evaluation: str, runtime: Runtime) -> Stage:
    """The stage that runs the graph of the stage `model`. What it gives depends on the CPU's instructions too."""
    config = {"runtime": runtime.model_dump(mode="json", exclude={"sources", "threads"}), "isa": list(host_info().isa)}
    inputs = {"model": model, "evaluation": evaluation, PROBE: PROBE}
    return Stage(ANSWERS, 2, "pipeline.checks.answers:run", config, inputs, ("onnxruntime", "numpy"))


def run(context: StageContext) -> StageMetadata:
    """Writes what `read_answers` reads."""
    model, evaluation = graphs_in(context.inputs["model"].path), context.inputs["evaluation"].path
    runtime = Runtime(**context.config["runtime"])
    session = parallel_session(model, runtime)
    write_answers(session, behaviour_in(context.inputs), evaluation, context.out, context.progress)
    return {}


def answering_session(model: Graphs, target: Target, runner: Runner) -> ort.InferenceSession:
    """A session of the model where the runner is, on all its cores: answers do not depend on their number."""
    if runner is HOST:
        return parallel_session(model, target.runtime)
    subject = subject_of(model, Path(), target.runtime)
    return RunnerSession(runner, replace(subject, threads=ALL_CORES))


def write_answers(
    session: ort.InferenceSession, behaviour: Behaviour, evaluation: Path, out: Path, progress: Progress = silent
) -> None:
    """Run a model over every set of the `evaluation` artifact; write its `Outputs` into `out`: `<set>.npy` and, where
    batches ran too, `<set>-batched.npy`."""
    for folder in evaluation_folders(evaluation):
        outputs = run_set(session, folder, behaviour, progress)
        np.save(out / f"{folder.name}.npy", outputs.alone)
        if outputs.batched is not None:
            np.save(out / f"{folder.name}-batched.npy", outputs.batched)


def read_answers(folder: Path, name: str) -> Outputs:
    """The outputs on the evaluation set `name` (its folder's name) that `write_answers` left in `folder`."""
    batched = folder / f"{name}-batched.npy"
    return Outputs(
        np.load(folder / f"{name}.npy", allow_pickle=False),
        np.load(batched, allow_pickle=False) if batched.is_file() else None,
    )


def run_set(session: ort.InferenceSession, folder: Path, behaviour: Behaviour, progress: Progress = silent) -> Outputs:
    """One evaluation set through a model: alone as most apps do, then in batches of 16 if float's answers do not depend
    on them: padded in the samples' order where it has a mask, else of samples of one shape."""
    samples = open_samples(folder)
    alone = judged_outputs(session, samples, progress, behaviour.kind)
    if samples.states or behaviour.batch != "free" or behaviour.kind.self_labelled or not takes_batches(session):
        return Outputs(alone)  # apps let a language model write one text at a time
    pads = read_dataset(folder).get("pads", {}) if behaviour.padding == "harmless" else None
    if not _shared(session, samples, pads):
        return Outputs(alone)
    try:
        batched = judged_outputs(session, samples, progress, behaviour.kind, BATCH, pads, MOST_VALUES)
    except SESSION_ERRORS as error:
        raise StageError(
            f"The float model runs batches of {BATCH} samples, this one does not: {first_line(error)}",
            "Use another --recipe: its graph fixes something that the float graph leaves open.",
        ) from error
    return Outputs(alone, batched)


def _shared(session: ort.InferenceSession, samples: Samples, pads: dict[str, int] | None) -> bool:
    """Would any batch hold more than one sample?"""
    if pads is not None:
        return len(samples) > 1
    names = [entry.name for entry in session.get_inputs()]
    return len({samples.shapes(place, names) for place in range(len(samples))}) < len(samples)
