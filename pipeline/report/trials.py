"""The trial log: one line per export, so that a report can show what else was tried with the same model.

Read by reports only; a verdict never rests on it.
"""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.core.digest import canonical_json
from pipeline.core.report_types import Trial
from pipeline.core.types import Json

_LOG = "trials.jsonl"


def append_trial(store: Path, scope: str, trial: Trial) -> None:
    """Add a trial under `scope` (the digest of model and evaluation sets: only such trials compare)."""
    line = canonical_json({"scope": scope, "trial": trial.model_dump(mode="json")}) + "\n"
    with (store / _LOG).open("a", encoding="utf-8") as log:  # one short write in append mode is atomic
        log.write(line)


def earlier_trials(store: Path, scope: str) -> list[Trial]:
    """The latest trial of each label in `scope`, as `earlier run`."""
    path = store / _LOG
    if not path.is_file():
        return []
    latest: dict[str, Trial] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = _parse(line)
        if record is not None and record["scope"] == scope:
            trial = Trial.model_validate(record["trial"]).model_copy(update={"origin": "earlier run"})
            latest[trial.label] = trial
    return list(latest.values())


def _parse(line: str) -> dict[str, Json] | None:
    """A line cut short by a crash is passed over: the log only decorates a plot."""
    try:
        return json.loads(line)
    except ValueError:
        return None
