"""Stage function: can the judge fail a model at all? A budget that destroyed weights meet decides nothing.

Asked before anything expensive runs: of the evaluation sets, the labels and the limits that the gate and the searches
will go by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipeline.checks.accuracy import compare, whole_digits
from pipeline.checks.budgets import accuracy, sqnr
from pipeline.checks.budgets.metric import METRICS, Metric
from pipeline.checks.destroyed import destroy
from pipeline.checks.float_reference import Tried
from pipeline.checks.metric_runs import collect, fitted_value
from pipeline.checks.user_metric import UserMetric, call, load_user_metric
from pipeline.config.target import Target
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError, UsageError
from pipeline.core.report_types import DatasetAccuracy
from pipeline.core.stage import Stage, StageContext, StageMetadata
from pipeline.data.samples import Samples, evaluation_folders, open_samples, read_dataset
from pipeline.graph.files import Graphs, graph_megabytes, graphs_in, load_model, saved
from pipeline.metrics.outputs import LIMIT_DB
from pipeline.runtime.behaviour import PROBE, Behaviour, behaviour_in
from pipeline.runtime.infer import judged_outputs
from pipeline.runtime.session import SESSION_ERRORS, are_large, chained, parallel_float_session, parallel_session
from pipeline.tasks.output_kind import OutputKind

Array = NDArray[Any]
JUDGE, TRIED = "judge", "tried"
"""The name of this stage, and the part of its metadata that others ask again."""
DESTROYED, CONSTANT = "a model with destroyed weights", "a model that answers every sample alike"
_SHARE = 96
"""Samples of a set that are asked first; the whole set only if they cannot tell."""
_BATCH = 16
_SCRATCH = "destroyed.onnx"
_BROKEN: tuple[type[Exception], ...] = (StageError, *SESSION_ERRORS)


@dataclass(frozen=True)
class Limit:
    """One budget that accuracy decides, as the target has it."""

    name: str
    limit: float
    required: bool

    @property
    def metric(self) -> Metric:
        return METRICS.get(self.name)

    @property
    def can_fail(self) -> bool:
        """Could any model miss it? Not a drop of a hundred points or more, nor a share of none."""
        if self.metric.direction == "at most":
            return self.limit < 100 or self.name != accuracy.NAME
        return self.limit > 0

    def holds(self, value: float) -> bool:
        return self.metric.margin(value, self.limit) >= 0

    def met(self, value: float, result: DatasetAccuracy, who: str) -> str:
        """`a model with destroyed weights drops 0.20 points there, and 1 are allowed`."""
        if self.metric.direction == "at most" and self.name != accuracy.NAME:
            return f"{who} has {value:.3g} {self.metric.unit} there, and {self.limit:g} are allowed"
        if self.metric.direction == "at most":
            before = result.scores.get(f"{result.primary}_float")
            of_float = "" if before is None else f" of {before:.2f} in float"
            return f"{who} drops {value:.2f} points there ({result.primary}{of_float}), and {self.limit:g} are allowed"
        return f"{who} scores {value:.3f} there, and {self.limit:g} are asked for"

    def met_by(self, told: Callable[[DatasetAccuracy], float], results: Mapping[str, DatasetAccuracy]) -> str:
        """Which of the models that must fail meets it, in words; empty if none does."""
        for who, result in results.items():
            if self.holds(told(result)):
                return self.met(told(result), result, who)
        return ""

    def cannot_fail(self, dataset: str, met: str) -> str:
        """What to say of a budget that need not decide on a set. UsageError if it is required."""
        message = f"The budget {self.name} cannot fail on {dataset!r}: {met}."
        if self.required:
            raise UsageError(
                message,
                "Give more, or more varied, evaluation samples (--eval-data), a stricter limit "
                f"(--budget {self.name}=...), or for max_accuracy_drop a --metric of your own. Where float scores no "
                "better than chance, look at the pre-processing, the tokenizer and the labels.",
            )
        return message


def judge_stage(target: Target, metric: UserMetric | None) -> Stage:
    """The stage for a target's limits; its inputs are the traced float graph, the evaluation samples as it takes them,
    and what `probe` found."""
    limits = {one.name: {"limit": one.limit, "required": one.required} for one in _limits(target)}
    config = {"limits": limits, "metric": metric.identity() if metric else None}
    inputs = {"float": "trace.float", "evaluation": "samples.evaluation", PROBE: PROBE}
    local = {"given": metric.place() if metric else None}
    return Stage(JUDGE, 4, "pipeline.checks.decides:run", config, inputs, ("onnxruntime", "numpy"), local)


def run(context: StageContext) -> StageMetadata:
    """The metadata have the report's notes, and what became of the models that must fail. UsageError for a required
    budget that cannot fail, for labels that do not fit the model's outputs, and for a metric that does not."""
    limits = [Limit(name, **given) for name, given in context.config["limits"].items()]
    folders = evaluation_folders(context.inputs["evaluation"].path)
    given = context.config["given"]
    metric = load_user_metric(given["spec"], given["references"]) if given else None
    notes: list[str] = [_unfailing(limit) for limit in limits if not limit.can_fail]
    if are_large(graphs := graphs_in(context.inputs["float"].path)):
        return {"notes": [*notes, _not_tried(graphs)], TRIED: {}}
    found: Tried = {}
    with _models(context) as (of_float, destroyed):
        if not destroyed:
            notes.append("The graph has no weights that could be destroyed: nobody tried whether a budget can fail.")
        for number, folder in enumerate(folders):
            tried = _Tried(folder, behaviour_in(context.inputs), of_float, destroyed, metric)
            notes += [note for limit in limits if limit.can_fail and (note := tried.ask(limit))]
            found |= tried.known
            context.progress(number + 1, len(folders))
    told = {name: {who: one.model_dump(mode="json") for who, one in those.items()} for name, those in found.items()}
    return {"notes": list(dict.fromkeys(notes)), TRIED: told}


def _not_tried(graphs: Graphs) -> str:
    return (
        "Nobody tried whether a budget can fail: a copy of the float model with destroyed weights would take "
        f"{graph_megabytes(graphs) / 1000:.1f} GB more."
    )


def tried_in(judged: Artifact) -> Tried:
    """What became of the models that must fail, of the artifact of this stage."""
    return TypeAdapter(Tried).validate_python(judged.metadata[TRIED])


def ask_tried(target: Target, kind: OutputKind, tried: Tried) -> tuple[str, ...]:
    """What the stage would say of the target's limits, by what became of the models that must fail when it ran.

    Returns:
        Its notes. UsageError for a required budget that cannot fail.
    """
    limits = _limits(target)
    notes = [_unfailing(limit) for limit in limits if not limit.can_fail]
    if not tried:
        notes.append("Nobody tried here whether a model with destroyed weights can fail.")
    for name, results in tried.items():
        for limit in limits:
            told = limit.metric.on_set(kind) if limit.metric.on_set else None
            if told is not None and limit.can_fail and (met := limit.met_by(told, results)):
                notes.append(limit.cannot_fail(name, met))
    return tuple(dict.fromkeys(notes))


def _limits(target: Target) -> list[Limit]:
    """The budgets that accuracy decides."""
    return [
        Limit(name, budget.limit, budget.required)
        for name, budget in target.budgets.items()
        if METRICS.get(name).on_set is not None
    ]


def _unfailing(limit: Limit) -> str:
    return f"The budget {limit.name} cannot fail: its limit, {limit.limit:g} {limit.metric.unit}, lets any model pass."


Destroyed = dict[str, ort.InferenceSession]
"""Models that must fail, in words -> session."""


@contextmanager
def _models(context: StageContext) -> Iterator[tuple[ort.InferenceSession, Destroyed]]:
    """Sessions of the float model, and of the same with one graph destroyed: for each graph that has something to
    destroy."""
    graphs = graphs_in(context.inputs["float"].path)
    found: Destroyed = {}
    with ExitStack() as stack:
        for number, (spec, file) in enumerate(zip(graphs, graphs.files, strict=True)):
            scratch = stack.enter_context(_destroyed(file, context.out / f"{number}-{_SCRATCH}"))
            if scratch is not None:
                files = [scratch if other == file else other for other in graphs.files]
                words = DESTROYED if len(graphs) == 1 else f"{DESTROYED} in {spec.file}"
                found[words] = chained(files, graphs, parallel_session)
        yield parallel_float_session(graphs), found


@contextmanager
def _destroyed(file: Path, scratch: Path) -> Iterator[Path | None]:
    """A file of the graph with its weights destroyed; None if it has none."""
    model = load_model(file)
    if not destroy(model):
        yield None
        return
    spoiled = saved(model, scratch)
    del model
    with spoiled as path:
        yield path


class _Tried:
    """One evaluation set, with what the float model and those that must fail say of it."""

    def __init__(
        self,
        folder: Path,
        behaviour: Behaviour,
        of_float: ort.InferenceSession,
        destroyed: Destroyed,
        metric: UserMetric | None,
    ) -> None:
        self._dataset, self._samples, self._behaviour = read_dataset(folder), open_samples(folder), behaviour
        self._float, self._destroyed, self._metric = of_float, destroyed, metric
        self._known: dict[bool, dict[str, DatasetAccuracy]] = {}

    def ask(self, limit: Limit) -> str:
        """What to say of a budget that need not decide; empty if it can fail here. UsageError if it is required."""
        told = limit.metric.on_set(self._behaviour.kind) if limit.metric.on_set else None
        if told is None:
            return ""  # it does not apply to this kind of output
        drop = limit.name == accuracy.NAME
        met = limit.met_by(told, self._results(whole=False, drop=drop))
        if met and self._share(whole=True) != self._share(whole=False):
            met = limit.met_by(told, self._results(whole=True, drop=drop))
        return limit.cannot_fail(self._dataset["name"], met) if met else ""

    @property
    def known(self) -> Tried:
        """By the set's name: what became of the models that must fail, on as many samples as were asked."""
        results = self._known.get(True) or self._known.get(False)
        return {self._dataset["name"]: results} if results else {}

    def _results(self, whole: bool, drop: bool) -> Mapping[str, DatasetAccuracy]:
        if drop and self._metric is not None:
            return self._by_metric(self._metric)
        if whole not in self._known:
            self._known[whole] = self._judged(self._share(whole))
        return self._known[whole]

    def _share(self, whole: bool) -> list[int]:
        """Evenly spread samples, a pair being one."""
        count = len(self._samples) // (2 if self._dataset["pairs"] else 1)
        return (
            sorted({place * count // _SHARE for place in range(_SHARE)})
            if count > _SHARE and not whole
            else [*range(count)]
        )

    def _judged(self, chosen: list[int]) -> dict[str, DatasetAccuracy]:
        half, labels = len(self._samples) // 2, self._dataset["labels"]
        samples = self._samples.part(
            [*chosen, *(place + half for place in chosen)] if self._dataset["pairs"] else chosen
        )
        part = {**self._dataset, "samples": len(chosen), "labels": labels and [labels[place] for place in chosen]}
        reference = self._rows(self._float, samples)
        found = {}
        for who, outputs in self._impostors(reference, samples).items():
            try:
                result = compare(self._behaviour.kind, part, reference, outputs)
                ratio = min(self._behaviour.kind.noise_db(reference, outputs), LIMIT_DB)
                found[who] = result.model_copy(update={"scores": result.scores | {sqnr.NAME: ratio}})
            except ValueError as error:
                if len(chosen) < len(self._share(whole=True)):
                    return self._judged(self._share(whole=True))
                raise UsageError(
                    f"The model cannot be judged on {self._dataset['name']!r}: {error}.",
                    "Correct the labels, or give more samples.",
                ) from error
        return found

    def _impostors(self, reference: Array, samples: Samples) -> dict[str, Array]:
        """Outputs that must fail. What is not finite fails by itself."""
        found = {}
        constant = self._behaviour.kind.constant(reference)
        if constant is not None:
            found[CONSTANT] = constant
        for who, session in self._destroyed.items():
            with suppress(*_BROKEN):
                found[who] = self._rows(session, samples)
        return found

    def _rows(self, session: ort.InferenceSession, samples: Samples) -> Array:
        batch = _BATCH if self._behaviour.independent else 1
        return judged_outputs(session, samples, kind=self._behaviour.kind, batch=batch)

    def _by_metric(self, metric: UserMetric) -> dict[str, DatasetAccuracy]:
        """The user's own drop, of the whole set."""
        references = metric.references_for(self._dataset["name"], self._dataset["labels"], self._dataset["samples"])
        of_float = fitted_value(metric, self._float, self._samples, references)
        found = {}
        for who, session in self._destroyed.items():
            with suppress(*_BROKEN):  # a metric need not be defined for what is not finite
                value = call(metric.function, collect(session, self._samples), references)
                found[who] = DatasetAccuracy(
                    dataset=self._dataset["name"],
                    samples=self._dataset["samples"],
                    labelled=True,
                    primary=metric.name,
                    scores={},
                    drop=whole_digits(of_float - value),
                )
        return found
