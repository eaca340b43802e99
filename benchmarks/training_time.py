"""Running a plan, and the CPU time that each of its stages took when it ran."""

from __future__ import annotations

import json
import time

from pipeline.core.artifact import Artifact
from pipeline.core.run_stages import Outcome, run_stages
from pipeline.core.stage import Stage
from pipeline.core.store import Store, default_store
from pipeline.core.types import silent
from pipeline.plan.build import Plan


def run_plan(plan: Plan) -> dict[str, Artifact]:
    """The stages' results, from the store where they are there; CPU seconds of those that ran are kept beside them."""
    store = Store(default_store())
    store.prepare()
    last = time.process_time()

    def finished(_: Stage, outcome: Outcome) -> None:
        nonlocal last
        now = time.process_time()
        if not outcome.cached:
            place = default_store() / "spent"
            place.mkdir(exist_ok=True)
            (place / outcome.artifact.key).write_text(json.dumps(now - last), encoding="utf-8")
        last = now

    outcomes = run_stages(plan.stages, store, lambda _: silent, finished)
    return {name: outcome.artifact for name, outcome in outcomes.items()}


def cpu_seconds(artifact: Artifact) -> float:
    """CPU seconds of the stage that made `artifact`; LookupError if it was not made by a benchmark."""
    record = default_store() / "spent" / artifact.key
    if not record.is_file():
        raise LookupError(f"{artifact.stage} was not run by a benchmark: name an empty store with EDGE_STORE")
    return float(json.loads(record.read_text(encoding="utf-8")))
