"""A user's metric on what models answer: tried before it is judged by, and measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnxruntime as ort

from pipeline.checks.accuracy import whole_digits
from pipeline.checks.float_reference import FloatReference
from pipeline.checks.library_metrics import Metric
from pipeline.checks.user_metric import CONTRACT, MISFITS, Predictions, UserMetric, call
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError
from pipeline.core.report_types import DatasetAccuracy
from pipeline.core.types import Progress, silent
from pipeline.data.samples import Samples, evaluation_folders, open_samples, read_dataset
from pipeline.graph.files import graphs_in
from pipeline.runtime.session import make_session
from pipeline.runtime.states import run_in_order


def fitted_value(
    metric: UserMetric, session: ort.InferenceSession, samples: Samples, references: Sequence[Any]
) -> float:
    """The float model's value. The metric is tried on two samples first: UsageError with its contract if they are not
    what it takes, or if it fails on all samples. Other failures on two may mean that two are too few."""
    few = collect(session, samples.part([*range(min(2, len(samples)))]))
    try:
        call(metric.function, few, references[: len(few)])
    except StageError as error:
        if isinstance(error.__cause__, MISFITS):
            raise UsageError(error.message, CONTRACT) from error
    try:
        return call(metric.function, collect(session, samples), references)
    except StageError as error:
        raise UsageError(error.message, CONTRACT) from error


def measure_user_metric(
    metric: UserMetric,
    results: tuple[DatasetAccuracy, ...],
    bundle: ort.InferenceSession,
    reference: FloatReference,
) -> tuple[DatasetAccuracy, ...]:
    """The results with the user's metric in front, over all outputs of both models. `bundle`: its session, wherever it
    runs; the float model runs here as its reference did: with ONNX Runtime's defaults. UsageError where only its judged
    outputs are here."""
    if reference.float_model is None:
        raise UsageError(
            "A --metric needs the float model, and here are its judged outputs alone.",
            "Leave --metric out, or check where the export's store is.",
        )
    sessions = make_session(graphs_in(reference.float_model), Runtime()), bundle
    scored = []
    folders = zip(*map(evaluation_folders, (reference.source_evaluation, reference.evaluation)), strict=True)
    for result, (original, folder) in zip(results, folders, strict=True):
        dataset = read_dataset(folder)
        references = metric.references_for(dataset["name"], dataset["labels"], dataset["samples"])
        samples = open_samples(original), open_samples(folder)
        of_float, of_bundle = map(collect, sessions, samples)
        scored.append(with_metric(result, metric.function, references, of_float, of_bundle))
    return tuple(scored)


def with_metric(
    result: DatasetAccuracy,
    metric: Metric,
    references: Sequence[Any],
    reference: Sequence[dict[str, Any]],
    bundle: Sequence[dict[str, Any]],
) -> DatasetAccuracy:
    """The result of one set with the user's metric in front: its drop, float minus bundle, takes the place of ours."""
    of_float, of_bundle = call(metric, reference, references), call(metric, bundle, references)
    name = getattr(metric, "__name__", "metric")
    scores = {name: of_bundle, f"{name}_float": of_float, **result.scores}
    update = {"primary": name, "labelled": True, "scores": scores, "drop": whole_digits(of_float - of_bundle)}
    update |= {"low": None, "high": None, "batch": 1}
    return result.model_copy(update=update)


def collect(session: ort.InferenceSession, samples: Samples, progress: Progress = silent) -> Predictions:
    """All outputs of each sample by name, each run alone. A metric sees all samples at once, so memory grows with
    them; give it a set that fits."""
    names = [entry.name for entry in session.get_outputs()]
    found = []
    for done, (_, outputs) in enumerate(run_in_order(session, samples, names), start=1):
        found.append(outputs)
        progress(done, len(samples))
    return Predictions(found, lambda inputs: dict(zip(names, session.run(names, inputs), strict=True)))
