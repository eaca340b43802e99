"""The trial log: one line per export, so that a report can show what else was tried with the same model.

Read by reports only; a verdict never rests on it, and nothing that stands in it stops an export.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.config.target import THIS_MACHINE
from pipeline.core.digest import canonical_json, sha256_json
from pipeline.core.documents import DocumentError, parse_json
from pipeline.core.errors import StageError
from pipeline.core.paths import NOTHING, kind_of, open_plain
from pipeline.core.report_types import Trial

_LOG = "trials.jsonl"
_MAX_BYTES = 8_000_000
"""Only the end of a longer log is read, some ten thousand exports."""
_MAX_LINE = 20_000
"""Bytes; a trial has some 200."""
_MOST_MEGABYTES, _MOST_POINTS = 1e7, 1e4
"""Beyond these a plot's axis would show nothing else."""


def trial_scope(model_digest: str, evaluation_digest: str, runner: str = THIS_MACHINE) -> str:
    """Only trials of one model on the same evaluation sets compare, and what one runner answers with its own."""
    return sha256_json([model_digest, evaluation_digest, *([] if runner == THIS_MACHINE else [runner])])


def append_trial(store: Path, scope: str, trial: Trial) -> None:
    """Add a trial under `scope` (the digest of model and evaluation sets: only such trials compare). A log that is no
    plain file is left as it is; `earlier_trials` says so."""
    line = canonical_json({"scope": scope, "trial": trial.model_dump(mode="json")}).encode()
    try:
        descriptor = open_plain(store / _LOG, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    except (StageError, PermissionError):
        return
    try:
        size = os.fstat(descriptor).st_size
        cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a crash; the line stays alone
        os.write(descriptor, (b"\n" if cut else b"") + line + b"\n")  # one short write in append mode is atomic
    finally:
        os.close(descriptor)


def earlier_trials(store: Path, scope: str) -> tuple[list[Trial], list[str]]:
    """The latest trial of each label in `scope`, as `earlier run`, and notes on what of the log cannot be read."""
    try:
        lines = _lines(store / _LOG)
    except (StageError, OSError) as error:
        return [], [f"The log of earlier exports was passed over: {error}"]
    latest: dict[str, Trial] = {}
    odd = 0
    for line in lines:
        try:
            trial = _parse(line, scope)
        except (DocumentError, ValueError, KeyError, TypeError):
            odd += 1
            continue
        if trial is not None:
            latest[trial.label] = trial
    notes = [f"{odd} line{'s' if odd > 1 else ''} of {_LOG} in the store cannot be read; passed over."] if odd else []
    return list(latest.values()), notes


def _lines(path: Path) -> list[bytes]:
    if kind_of(path) == NOTHING:
        return []
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - _MAX_BYTES))
        lines = log.read(_MAX_BYTES).split(b"\n")
    return [line for line in lines[size > _MAX_BYTES :] if line]


def _parse(line: bytes, scope: str) -> Trial | None:
    """The trial of a line, None of another scope; DocumentError, KeyError, TypeError or ValueError for odd ones."""
    if len(line) > _MAX_LINE:
        raise ValueError("too long")
    record = parse_json(line)
    if record["scope"] != scope:
        return None
    trial = Trial.model_validate(record["trial"])
    if not 0 < trial.megabytes < _MOST_MEGABYTES or abs(trial.accuracy) > _MOST_POINTS:
        raise ValueError("no export has such figures")
    return trial.model_copy(update={"origin": "earlier run"})
