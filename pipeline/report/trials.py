"""What the accuracy-versus-size plot of an export shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.checks.measurements import Measurements
from pipeline.core.report_types import Trial
from pipeline.core.run_stages import Outcome
from pipeline.graph.files import graph_megabytes, graphs_in
from pipeline.report.subject import Subject
from pipeline.report.trial_log import append_trial, earlier_trials, trial_scope


def compared_trials(
    store: Path, subject: Subject, outcomes: Mapping[str, Outcome], found: Measurements
) -> tuple[list[Trial], list[str]]:
    """Float, what passes tried, earlier exports of the same model on the same evaluation sets, and this one, which is
    added to the log; and notes on what cannot be read of it."""
    evaluation, runner = outcomes["samples.evaluation"].artifact.digest, found.case.target.runner
    scope = trial_scope(subject.model_digest, evaluation, runner)
    accuracy = 100 - max(result.drop for result in found.records.accuracy)
    this = Trial(label=subject.recipe, origin="this run", megabytes=found.megabytes, accuracy=accuracy)
    traced = outcomes["trace.float"].artifact.path
    size = graph_megabytes(graphs_in(traced))
    original = Trial(label="float", origin="float", megabytes=size, accuracy=100.0)
    searched = [
        Trial(label=tried["label"], origin="search", megabytes=tried["megabytes"], accuracy=100 - tried["drop"])
        for step in subject.passes
        for tried in step.tried
    ]
    known, notes = earlier_trials(store, scope)
    append_trial(store, scope, this)
    return [original, *searched, *(trial for trial in known if trial.label != this.label), this], notes
