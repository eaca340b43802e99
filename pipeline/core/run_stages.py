"""Runs a plan's stages in order against the store: what is there already is read, the rest is built under a lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.core.artifact import Artifact, seal
from pipeline.core.errors import IntegrityError, ResourceError
from pipeline.core.memory import gc_threshold, is_disk_full, is_out_of_memory, require_address_space
from pipeline.core.silence import silence_output
from pipeline.core.stage import Stage, StageContext
from pipeline.core.store import Store
from pipeline.core.types import Progress, silent


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: its artifact, whether it was there already, and the seconds it took."""

    artifact: Artifact
    cached: bool
    seconds: float
    rebuilt: bool = False


Begin = Callable[[str], Progress]
Finished = Callable[[Stage, Outcome], None]


def run_stages(
    stages: Sequence[Stage], store: Store, begin: Begin, finished: Finished, verbose: bool = False
) -> dict[str, Outcome]:
    """Execute the stages one after the other; outcomes by stage name.

    `begin(name)` returns the progress callback of a stage, `finished` hears of each outcome. Libraries are kept
    quiet unless `verbose`. ResourceError if the process may not map enough memory for them.
    """
    require_address_space()
    outcomes: dict[str, Outcome] = {}
    for stage in stages:
        progress = begin(stage.name)
        with silence_output(not verbose), gc_threshold():
            outcomes[stage.name] = execute(stage, _inputs(stage, outcomes), store, progress)
        finished(stage, outcomes[stage.name])
    return outcomes


def execute(stage: Stage, inputs: Mapping[str, Artifact], store: Store, progress: Progress = silent) -> Outcome:
    """Return the stage's artifact from the store, or build it under its lock.

    Raises StageError (or another EdgeError) if the stage fails; nothing half-written is left then.
    """
    begin = time.perf_counter()
    key = stage.key(inputs)
    with store.lock(key):
        damaged = False
        try:
            found = store.find(key)
        except IntegrityError:
            store.discard(key)
            found, damaged = None, True
        if found is not None:
            return Outcome(found, cached=True, seconds=time.perf_counter() - begin)
        artifact = _build(stage, inputs, store, key, progress)
    return Outcome(artifact, cached=False, seconds=time.perf_counter() - begin, rebuilt=damaged)


def preview(stages: Sequence[Stage], store: Store) -> list[tuple[str, str]]:
    """(stage, `cached` | `run` | `damaged, rebuild`) without running anything. What follows a stage that must run
    depends on its result, and is said to run too."""
    known: dict[str, Artifact] = {}
    rows = []
    for stage in stages:
        state = "run"
        if all(name in known for name in stage.inputs.values()):
            key = stage.key({role: known[name] for role, name in stage.inputs.items()})
            state = _look_up(store, key, stage.name, known)
        rows.append((stage.name, state))
    return rows


def _inputs(stage: Stage, outcomes: dict[str, Outcome]) -> dict[str, Artifact]:
    return {role: outcomes[name].artifact for role, name in stage.inputs.items()}


def _build(stage: Stage, inputs: Mapping[str, Artifact], store: Store, key: str, progress: Progress) -> Artifact:
    with _stage_errors(stage.name), store.staging(key) as folder:
        run = stage.function()  # here, since a library that does not fit in memory fails on import
        scratch, config = store.scratch(key), {**stage.config, **stage.local}
        context = StageContext(config, inputs, folder, progress, scratch, stage.models)
        metadata = run(context)
        seal(folder, stage.name, key, stage.identity(inputs), metadata, context.digests)
        return store.commit(folder, key)


@contextmanager
def _stage_errors(stage: str) -> Iterator[None]:
    """Turns the operating system's failures inside a stage into one clear message that names the stage."""
    try:
        yield
    except ResourceError:
        raise
    except BaseException as error:
        if is_disk_full(error):
            raise ResourceError(
                f"Stage {stage}: the disk is full.",
                "Free some space (`edge clean` shrinks the store) and run the same command again; "
                "finished stages are kept.",
            ) from error
        if is_out_of_memory(error):
            raise ResourceError(
                f"Stage {stage}: out of memory.",
                "Use a machine with more memory or, for texts, a smaller --sequence-length; finished stages are kept.",
            ) from error
        raise


def _look_up(store: Store, key: str, name: str, known: dict[str, Artifact]) -> str:
    try:
        found = store.find(key)
    except IntegrityError:
        return "damaged, rebuild"
    if found is None:
        return "run"
    known[name] = found
    return "cached"
