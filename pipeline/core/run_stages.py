"""Runs a plan's stages in order against the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.core.artifact import Artifact
from pipeline.core.errors import IntegrityError
from pipeline.core.memory import require_address_space, seldom_collected
from pipeline.core.quiet import quiet
from pipeline.core.stage import Outcome, Stage, execute, stage_key
from pipeline.core.store import Store
from pipeline.core.types import Progress

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
        with quiet(not verbose), seldom_collected():
            outcomes[stage.name] = execute(stage, _inputs(stage, outcomes), store, progress)
        finished(stage, outcomes[stage.name])
    return outcomes


def _inputs(stage: Stage, outcomes: dict[str, Outcome]) -> dict[str, Artifact]:
    return {role: outcomes[name].artifact for role, name in stage.inputs.items()}


def preview(stages: Sequence[Stage], store: Store) -> list[tuple[str, str]]:
    """(stage, `cached` | `run` | `damaged, rebuild`) without running anything. What follows a stage that must run
    depends on its result, and is said to run too."""
    known: dict[str, Artifact] = {}
    rows = []
    for stage in stages:
        state = "run"
        if all(name in known for name in stage.inputs.values()):
            key = stage_key(stage, {role: known[name] for role, name in stage.inputs.items()})
            state = _look_up(store, key, stage.name, known)
        rows.append((stage.name, state))
    return rows


def _look_up(store: Store, key: str, name: str, known: dict[str, Artifact]) -> str:
    try:
        found = store.find(key)
    except IntegrityError:
        return "damaged, rebuild"
    if found is None:
        return "run"
    known[name] = found
    return "cached"
