"""A bundle's answers on the classes of CPUs that its target names: golden outputs, and a few evaluation samples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle.golden import read_golden
from pipeline.bundle.verify import golden_differences
from pipeline.checks.accuracy import part_of, samples_of_rows
from pipeline.checks.answers import Outputs, read_answers
from pipeline.checks.float_reference import FloatReference
from pipeline.config.target import Target
from pipeline.core.errors import StageError
from pipeline.core.report_types import TierAccuracy, TierCheck
from pipeline.core.types import Evidence, Progress, silent
from pipeline.data.samples import evaluation_folders, open_samples, read_dataset
from pipeline.devices.arm64.counting import count
from pipeline.devices.arm64.runner import EmulatedRunner
from pipeline.devices.qnn.runner import QnnRunner
from pipeline.devices.runner import Runner, subject_of
from pipeline.devices.runner_session import RunnerSession
from pipeline.devices.worker import Subject, available_cores
from pipeline.graph.files import Graphs
from pipeline.runtime.infer import judged_outputs
from pipeline.tasks.output_kind import OutputKind

Array = NDArray[Any]
_MOST_DB = 300.0


@dataclass(frozen=True)
class Inference:
    """What runs once at the target's shape: the bundle, and the float model if it is here."""

    of_bundle: Subject
    of_float: Subject | None = None


def check_tiers(
    bundle: Path,
    model: Graphs,
    target: Target,
    runners: dict[str, Runner],
    reference: FloatReference | None,
    answers: Path | None,
    progress: Progress = silent,
    inference: Inference | None = None,
) -> tuple[TierCheck, ...]:
    """Run the golden inputs and evaluation samples of a bundle on every tier, and count instructions, several tiers at
    a time.

    Args:
        bundle: The bundle's folder, with the golden inputs.
        model: Its graphs.
        target: Whose runtime and number of samples count.
        runners: By tier.
        reference: The float model's outputs; without it, the golden inputs run alone.
        answers: What the bundle answered on this machine (see `write_answers`).
        inference: Whose instructions are counted; without it, none are.

    Raises:
        StageError: If a runner cannot be used at all. A model that one of them refuses is a `failure` of that tier.
    """
    machines = {name: runner.info() for name, runner in runners.items()}
    done: list[str] = []
    sampled = _sampled(runners)

    def check(name: str) -> TierCheck:
        runner, machine = runners[name], machines[name]
        session = RunnerSession(runner, subject_of(model, Path(), target.runtime))
        found = TierCheck(tier=name, cpu=machine.cpu, isa=machine.isa, evidence=runner.evidence)
        try:
            found = found.model_copy(update=_golden(bundle, session))
            if reference is not None and answers is not None and name in sampled:
                update = {"accuracy": _accuracy(session, reference, answers, target.tier_samples)}
                found = found.model_copy(update=update)
            if inference is not None:
                own = name == next(iter(runners))
                found = found.model_copy(
                    update=_counts(runner, inference if own else replace(inference, of_float=None))
                )
        except StageError as error:
            found = found.model_copy(update={"matched": 0, "failure": str(error.message)})
        done.append(name)
        progress(len(done), len(runners))
        return found

    pool = ThreadPoolExecutor(min(available_cores(), len(runners)))
    try:
        return tuple(pool.map(check, runners))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupt must not wait for emulated inferences


def _sampled(runners: dict[str, Runner]) -> set[str]:
    """Where evaluation samples run: on one NPU alone, since QNN's library computes alike for all, and slowly."""
    npus = [name for name, runner in runners.items() if isinstance(runner, QnnRunner)]
    return {*runners} - {*npus[1:]}


def _counts(runner: Runner, inference: Inference) -> dict[str, Any]:
    if isinstance(runner, QnnRunner):
        return {}
    if not isinstance(runner, EmulatedRunner):
        return {"uncounted": "they are counted on emulated Arm CPUs alone"}
    if runner.evidence is not Evidence.EMULATED:
        return {"uncounted": "only the emulator counts instructions, and this machine is of the tier itself"}
    try:
        counts = {"counts": count(runner, inference.of_bundle)}
        if inference.of_float is not None:
            counts["float_counts"] = count(runner, inference.of_float)
    except StageError as why:  # the answers stand, whatever became of the counter
        return {"uncounted": why.message}
    return counts


def _golden(bundle: Path, session: RunnerSession) -> dict[str, Any]:
    golden = read_golden(bundle)
    found = golden_differences(bundle, golden, session)
    largest = max(found, default=0.0)
    return {
        "golden": golden.samples,
        "matched": sum(each <= golden.tolerance for each in found),
        "difference": largest if np.isfinite(largest) else None,
        "tolerance": golden.tolerance,
    }


def _accuracy(session: RunnerSession, reference: FloatReference, answers: Path, most: int) -> tuple[TierAccuracy, ...]:
    folders = evaluation_folders(reference.evaluation)
    share = max(most // len(folders), 1)
    return tuple(_of_set(session, reference, folder, read_answers(answers, folder.name), share) for folder in folders)


def _of_set(session: RunnerSession, reference: FloatReference, folder: Path, here: Outputs, most: int) -> TierAccuracy:
    """One set's samples, evenly spread over it. The two sides of a pair count as two."""
    kind, dataset = reference.behaviour.kind, read_dataset(folder)
    expected = np.load(reference.reference / f"{folder.name}.npy", allow_pickle=False)
    of_row = samples_of_rows(kind, dataset, len(expected))
    samples = open_samples(folder)
    count = int(of_row.max()) + 1
    sides = len(samples) // count
    chosen = spread(count, max(most // sides, kind.smallest))
    places = [side * count + place for side in range(sides) for place in chosen]
    rows = judged_outputs(session, samples.part(places), kind=kind)
    kept = np.isin(np.arange(count), chosen)
    there = Outputs(_with(kind, here.alone, kept[of_row], rows))
    on_tier, on_host = (part_of(kind, dataset, expected, out, kept) for out in (there, Outputs(here.alone)))
    ours, theirs = here.alone[kept[of_row]], there.alone[kept[of_row]]
    return TierAccuracy(
        dataset=dataset["name"],
        samples=len(chosen),
        whole=count,
        primary=on_tier.primary,
        drop=on_tier.drop,
        host_drop=on_host.drop,
        same=kind.same(ours, theirs),
        sqnr_db=float(np.clip(kind.noise_db(ours, theirs), -_MOST_DB, _MOST_DB)),
    )


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers below `count`, evenly spaced; always the same."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, most)).round()})


def _with(kind: OutputKind, whole: Array, chosen: NDArray[np.bool_], rows: Array) -> Array:
    """The rows `whole` with the `chosen` ones replaced; those of some kinds have no common length."""
    if whole.shape[1:] == rows.shape[1:]:
        changed = whole.copy()
        changed[chosen] = rows
        return changed
    replaced = iter(rows)
    return kind.join([next(replaced)[None] if new else row[None] for row, new in zip(whole, chosen, strict=True)])
