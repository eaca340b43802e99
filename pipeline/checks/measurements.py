"""All measurements of one bundle. What budgets make of them stands in checks/budgets/."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort

from pipeline.bundle.example_feed import example_feed
from pipeline.bundle.graph import read_graphs
from pipeline.bundle.manifest import bundle_bytes
from pipeline.bundle.records import bundle_graphs, read_metadata
from pipeline.checks.accuracy import measure_accuracy, suspicious, unused_labels
from pipeline.checks.answers import answering_session, write_answers
from pipeline.checks.breakdown import operator_times, tensor_groups
from pipeline.checks.coverage import Ran, coverage
from pipeline.checks.estimates import Estimates, estimates_of
from pipeline.checks.float_reference import FloatReference
from pipeline.checks.left_in_float import Reasons, Stored
from pipeline.checks.metric_runs import measure_user_metric
from pipeline.checks.npu import fp16_advice, npu_graphs, npu_runners
from pipeline.checks.providers import provider_coverage
from pipeline.checks.saturation import joined, overflow
from pipeline.checks.tiers import Inference, check_tiers
from pipeline.checks.timing import SECONDS, TIMED, measure_latency, measure_variant
from pipeline.checks.user_metric import UserMetric
from pipeline.checks.weights import Graph, Weight
from pipeline.checks.work import work_of
from pipeline.config.target import THIS_MACHINE, Runtime, Target
from pipeline.core.budgets import PREVIOUS
from pipeline.core.report_types import (
    DatasetAccuracy,
    DecodingResult,
    ExactMatch,
    GraphLatency,
    LatencyResult,
    Measured,
    MemoryResult,
    QuantizationCheck,
    RangeCheck,
    TierCheck,
    WrittenTexts,
)
from pipeline.core.types import Figure, Progress, Scheme
from pipeline.data.samples import evaluation_folders, read_dataset
from pipeline.devices import runner_of
from pipeline.devices.decoding import cache_of, measure_decoding
from pipeline.devices.host_info import host_info
from pipeline.devices.memory import measure_fit, measure_memory
from pipeline.devices.ort_profile import NodeRecord, profile
from pipeline.devices.qnn.runner import QnnRunner
from pipeline.devices.runner import Kind, Runner, giving, lacking, subject_of
from pipeline.devices.worker import Feed, Language, Subject
from pipeline.forecast.work import Work
from pipeline.graph.files import Graphs, graph_megabytes, graphs_in
from pipeline.runtime.feeds import write_feed
from pipeline.runtime.session import are_large, make_session

PEAK_NAME = "peak_memory_mb"
"""The budget whose limit is tried."""
Begin = Callable[[str], Progress]
"""Called with the title of a measurement that starts; returns its progress callback."""


@dataclass(frozen=True)
class Case:
    """A bundle to measure for a target, and what is known of how it was made.

    Attributes:
        bundle: Its folder.
        target: Whose runtime, shape, runner and budgets count.
        scheme: The bundle's.
        reasons: Why weights were left in float, for the coverage table.
        reference: The float model, or its outputs alone; None if neither is here.
        metric: The user's own.
        answers: The bundle's outputs on the evaluation sets, where its export has just made them.
        quantization: What the stage `compare` found, if there is one.
        ranges: What the stage `outside` found, if there is one.
        texts: What the stage `texts` found, of a language model.
        exact_match: What the stage `exact_match` found, of a language model and sets with problems.
        previous: An earlier bundle of the model, which runs in turns with this one.
    """

    bundle: Path
    target: Target
    scheme: Scheme
    reasons: Reasons
    reference: FloatReference | None = None
    metric: UserMetric | None = None
    answers: Path | None = None
    quantization: QuantizationCheck | None = None
    ranges: RangeCheck | None = None
    texts: WrittenTexts | None = None
    exact_match: tuple[ExactMatch, ...] = ()
    previous: Path | None = None

    @property
    def model(self) -> Graphs:
        """Its graphs."""
        return bundle_graphs(self.bundle)

    @property
    def float_model(self) -> Graphs | None:
        """The graphs of the float model, if they can be timed beside the bundle."""
        found = self._stored_float
        return None if found is None or are_large(found) else found

    @property
    def untimed_float(self) -> str:
        """Why the float model is here and not timed; empty if it is not so."""
        found = self._stored_float
        if found is None or not are_large(found):
            return ""
        gigabytes = graph_megabytes(found) / 1000
        return (
            f"The float model is not timed, and nothing is said of the speed-up over it: its {gigabytes:.1f} GB of "
            "weights would be in memory once more, as ONNX Runtime packs them."
        )

    @property
    def _stored_float(self) -> Graphs | None:
        folder = self.reference.float_model if self.reference else None
        return graphs_in(folder) if folder else None

    @cached_property
    def runner(self) -> Runner:
        """One for all measurements: it may keep a connection, or copies of files."""
        return runner_of(self.target)

    def giving(self, kind: Kind) -> Runner:
        """The runner that gives figures of a kind: another one, where the target's cannot."""
        return giving(self.runner, kind)


@dataclass(frozen=True)
class Measurements:
    """What was measured of one bundle: the metrics of budgets make figures and explanations of it, the report shows it.

    Attributes:
        case: The bundle.
        records: What the report shows as it is.
        megabytes: Of all files of the bundle.
        weights: As the bundle stores them.
        takes_text: Whether the length of its inputs is counted in tokens.
        takes_passes: Whether compression passes take such a model: one of a single graph.
        writes_texts: Whether it is a language model.
        notes: What every reader must know of how the figures were got.
        warnings: What looks wrong.
        reported: Figures by the name of their budget that a report from elsewhere gives (see `device_report`): they
            stand in place of those that were measured here.
        estimates: Figures of budgets that the target's device would have, by the names of the budgets.
    """

    case: Case
    records: Measured
    megabytes: float
    weights: tuple[Weight, ...] = ()
    takes_text: bool = False
    takes_passes: bool = True
    writes_texts: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reported: Mapping[str, Figure] = field(default_factory=dict)
    estimates: Estimates = field(default_factory=dict)


def measure(case: Case, begin: Begin) -> Measurements:
    """Measure everything that a budget can ask for on the target's runner, but for what it cannot give (`lacking`)."""
    with tempfile.TemporaryDirectory(prefix="edge-check-") as scratch:
        inputs, feed = Path(scratch) / "inputs.npz", example_feed(case.bundle, case.target.shape)
        feed |= _removed(case, feed)
        write_feed(inputs, feed)
        subject = subject_of(case.model, inputs, case.target.runtime)
        singles = _singles(case, subject, feed)
        latency = _latency(case, subject, singles, begin)
        previous_speed = _previous_speed(case, subject, begin)
        spec = read_metadata(case.bundle).language
        language = None if spec is None else cache_of(spec)
        memory = _memory(case, subject, language, begin)
        decoding = _decoding(case, subject, language, begin)
        ran, own, of_float = _profile(case, singles, begin("profile"))
        answers = _answers(case, Path(scratch), begin)
        accuracy = _accuracy(case, answers, begin("accuracy"))
        tiers = _tiers(case, answers, subject, begin)
    models, metadata = list(read_graphs(case.bundle).values()), read_metadata(case.bundle)
    weights = tuple(weight for model in models for weight in Graph(model).weights)
    work = work_of(ran, models)
    return Measurements(
        case,
        Measured(
            latency=latency,
            previous_speed=previous_speed,
            memory=memory,
            decoding=decoding,
            accuracy=accuracy,
            coverage=coverage(*ran),
            overflow=joined([graph.overflow for graph in ran]),
            operators=operator_times(own),
            float_operators=operator_times(of_float),
            tensors=tensor_groups(*models),
            quantization=case.quantization,
            ranges=case.ranges,
            texts=case.texts,
            exact_match=case.exact_match,
            tiers=tiers,
            npu=npu_graphs(case.bundle, case.target, models),
            providers=provider_coverage(models, {name: array.shape for name, array in feed.items()}),
        ),
        bundle_bytes(case.bundle) / 1e6,
        weights,
        takes_text=metadata.max_length is not None,
        writes_texts=metadata.language is not None,
        takes_passes=len(models) == 1,
        notes=(
            *_accuracy_notes(case),
            *_runner_notes(case),
            *_graph_notes(latency),
            *_float_notes(case),
            *_npu_notes(case, work, weights),
        ),
        warnings=tuple(suspicious(accuracy)),
        estimates=estimates_of(work, weights, metadata.language, case.scheme, case.target),
    )


def _memory(case: Case, subject: Subject, language: Language | None, begin: Begin) -> MemoryResult | None:
    runner = case.giving("memory")
    if lacking(runner, "memory"):
        return None
    done = begin("memory")
    result = measure_memory(runner, subject, language)
    budget = case.target.budgets.get(PEAK_NAME)
    if budget is not None:
        fit = measure_fit(runner, subject, budget.limit, result, language)
        result = result.model_copy(update={"fit": fit})
    done(1, 1)
    return result


def _decoding(case: Case, subject: Subject, language: Language | None, begin: Begin) -> DecodingResult | None:
    runner = case.giving("times")
    if language is None or lacking(runner, "times"):
        return None
    done = begin("decoding")
    result = measure_decoding(runner, subject, language, case.target.shape.sequence_length)
    done(1, 1)
    return result


@dataclass(frozen=True)
class _Single:
    """One graph of the bundle, with inputs of its own, and the float model's form of it."""

    name: str
    subject: Subject
    of_float: Subject | None


def _removed(case: Case, feed: Feed) -> Feed:
    """Empty caches [batch, heads, 0, size] of the layers that the float model has and the bundle lost to a pass."""
    given = case.float_model.inputs if case.float_model and read_metadata(case.bundle).language else {}
    batch = case.target.shape.batch_size
    return {
        name: np.zeros([batch, *(axis if isinstance(axis, int) else 0 for axis in entry.shape[1:])], np.float32)
        for name, entry in given.items()
        if name not in feed
    }


def _singles(case: Case, subject: Subject, feed: Feed) -> list[_Single]:
    """Every graph by itself. What later ones take of the graphs before is computed here."""
    of_float = case.float_model
    found = []
    for place, (spec, file) in enumerate(zip(case.model, case.model.files, strict=True)):
        if place:
            feed |= _outputs(case.model.up_to(place), feed, case.target.runtime)
        inputs = Path(subject.inputs).with_name(f"inputs-{place}.npz")
        own = {entry.name: feed[spec.feeds.get(entry.name, entry.name)] for entry in spec.inputs}
        write_feed(inputs, own if place else feed | own)  # the first graph's float form may take more
        single = subject_of(file, inputs, case.target.runtime)
        float_file = of_float.files[place] if of_float else None
        found.append(_Single(spec.name, single, replace(single, model=str(float_file)) if float_file else None))
    return found


def _outputs(graphs: Graphs, feed: Feed, runtime: Runtime) -> Feed:
    session = make_session(graphs, runtime)
    names = [entry.name for entry in session.get_outputs()]
    given = {entry.name: feed[entry.name] for entry in session.get_inputs()}
    return dict(zip(names, session.run(names, given), strict=True))


def _latency(case: Case, subject: Subject, singles: Sequence[_Single], begin: Begin) -> LatencyResult | None:
    """Of all graphs, one after the other; and of each by itself, in one process, where there are several."""
    runner = case.giving("times")
    if lacking(runner, "times"):
        return None
    done = begin("latency")
    seconds = case.target.measure_seconds or SECONDS
    of_float = _of_float(case, subject)
    result = measure_latency(runner, subject, of_float, _limits(case, of_float is not None), seconds, progress=done)
    done(1, 1)
    if of_float is None and (speedup := _of_the_export(case)) is not None:
        result = result.model_copy(update={"speedup": speedup})
    if len(singles) == 1:
        return result
    return result.model_copy(update={"graphs": tuple(_graph_latency(case, single) for single in singles)})


def _of_float(case: Case, subject: Subject) -> Subject | None:
    """The float model under the same inputs and runtime, if it is here."""
    return subject_of(case.float_model, Path(subject.inputs), case.target.runtime) if case.float_model else None


def _of_the_export(case: Case) -> Figure | None:
    """The speed-up that the bundle's export measured, and where, if it left that."""
    facts = case.reference.facts if case.reference else None
    if facts is None or facts.speedup is None:
        return None
    note = f"measured by the export on {facts.cpu}, not here; {facts.speedup.note}"
    return facts.speedup.model_copy(update={"note": note})


def _graph_latency(case: Case, single: _Single) -> GraphLatency:
    found = measure_latency(case.giving("times"), single.subject, single.of_float)
    return GraphLatency(name=single.name, shape=found.shape, p50=found.p50, p95=found.p95, speedup=found.speedup)


def _previous_speed(case: Case, subject: Subject, begin: Begin) -> Figure | None:
    """How many times faster this bundle is than the earlier one, in turns in the same processes."""
    runner, budget = case.giving("times"), case.target.budgets.get(PREVIOUS)
    if case.previous is None or budget is None or lacking(runner, "times"):
        return None
    done = begin("latency beside the earlier bundle")
    earlier = subject_of(bundle_graphs(case.previous), Path(subject.inputs), case.target.runtime)
    seconds = case.target.measure_seconds or SECONDS
    figure = measure_variant(runner, [earlier, subject], budget.limit, seconds)
    done(1, 1)
    return figure.model_copy(update={"note": f"against the bundle {case.previous.name}; {figure.note}"})


def _limits(case: Case, beside_float: bool) -> dict[str, float]:
    """What the timing has to decide: the limits that a figure of this runner may pass or fail."""
    names = TIMED if beside_float else TIMED[1:]
    budgets = {name: case.target.budgets[name] for name in names if name in case.target.budgets}
    return {name: budget.limit for name, budget in budgets.items() if case.giving("times").evidence in budget.evidence}


class _Profile(NamedTuple):
    """All graphs as they ran, and the operators of the bundle and of the float model with their times, none where no
    runner has them."""

    ran: list[Ran]
    own: list[NodeRecord]
    of_float: list[NodeRecord]


def _profile(case: Case, singles: Sequence[_Single], done: Progress) -> _Profile:
    clock = case.giving("times")
    timed = not lacking(clock, "times")
    ran: list[Ran] = []
    own: list[NodeRecord] = []
    of_float: list[NodeRecord] = []
    for number, single in enumerate(singles, start=1):
        optimized = Path(single.subject.inputs).with_name("optimized.onnx")
        once = clock is not case.runner
        runs, warmup = (1, 0) if once else (20, 5)
        nodes = profile(case.giving("profile"), single.subject, optimized, runs=runs, warmup=warmup)
        stored = Stored(Path(single.subject.model), case.reasons)
        graph = onnx.load(optimized, load_external_data=False)
        ran.append(Ran(graph, nodes, stored, overflow(graph, optimized.parent)))
        if timed:
            own += nodes if not once else profile(clock, single.subject, optimized)
        if single.of_float is not None and timed:
            of_float += profile(clock, single.of_float, optimized.with_name("float.onnx"), runs=10)
        done(number, len(singles))
    return _Profile(ran, own, of_float)


def _session(case: Case) -> ort.InferenceSession:
    return answering_session(case.model, case.target, case.giving("answers"))


def _answers(case: Case, scratch: Path, begin: Begin) -> Path | None:
    """Where the bundle's outputs on the evaluation sets are; None where they are not here."""
    reference = case.reference
    if case.answers is not None or reference is None:
        return case.answers
    write_answers(_session(case), reference.behaviour, reference.evaluation, scratch, begin("answers"))
    return scratch


def _accuracy(case: Case, answers: Path | None, done: Progress) -> tuple[DatasetAccuracy, ...]:
    reference = case.reference
    if reference is None or answers is None:
        return ()
    results = measure_accuracy(reference.behaviour, reference.evaluation, reference.reference, answers)
    done(1, 1)
    if case.metric is None:
        return results
    return measure_user_metric(case.metric, results, _session(case), reference)


def _tiers(case: Case, answers: Path | None, subject: Subject, begin: Begin) -> tuple[TierCheck, ...]:
    """Answers and instructions on the CPUs that the runner knows by name. Of another machine that is one CPU the golden
    outputs alone: the evaluation samples ran there already."""
    runners: dict[str, Runner] = dict(getattr(case.runner, "tiers", {}))
    if not isinstance(case.runner, QnnRunner):
        runners |= npu_runners(case.bundle, case.target)
    if runners:
        done = begin(f"answers on {', '.join(runners)}")
        inference = Inference(subject, _of_float(case, subject))
        return check_tiers(case.bundle, case.model, case.target, runners, case.reference, answers, done, inference)
    name = case.target.runner
    if name == THIS_MACHINE or lacking(case.runner, "answers"):
        return ()
    return check_tiers(case.bundle, case.model, case.target, {name: case.runner}, None, None, begin("golden outputs"))


def _accuracy_notes(case: Case) -> list[str]:
    if case.reference is None:
        return []
    behaviour = case.reference.behaviour
    sets = map(read_dataset, evaluation_folders(case.reference.evaluation))
    unused = [unused_labels(behaviour.kind, dataset) for dataset in sets]
    return [*behaviour.notes(case.metric is not None), *filter(None, unused)]


def _graph_notes(latency: LatencyResult | None) -> list[str]:
    """What a run of all graphs is, and what each costs."""
    if latency is None or not latency.graphs:
        return []
    each = [f"{graph.name} on {_sizes(graph.shape)} {graph.p50.value:.3g} ms" for graph in latency.graphs]
    return [
        "Latency and its budgets are of one run of every graph: the encoder, and the decoder once over all tokens so "
        f"far (no cache is kept). By themselves: {'; '.join(each)} (p50)."
        if "decoder_input_ids" in latency.shape
        else f"Latency and its budgets are of one run of every graph. By themselves: {'; '.join(each)} (p50)."
    ]


def _float_notes(case: Case) -> list[str]:
    return [case.untimed_float] if case.untimed_float else []


def _npu_notes(case: Case, work: Work, weights: Sequence[Weight]) -> tuple[str, ...]:
    """What published rows say of such models there."""
    return fp16_advice(work, weights) if case.target.npu else ()


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """`input_ids [1, 16]`."""
    name, shape = next(iter(shapes.items()))
    return f"{name} {list(shape)}"


def _runner_notes(case: Case) -> list[str]:
    if case.target.runner == THIS_MACHINE:
        return []
    runner, there, here = case.runner, case.runner.info(), host_info().onnxruntime
    other = f"; ONNX Runtime {there.onnxruntime} there, {here} here" if there.onnxruntime not in ("", here) else ""
    name = f"the runner {case.target.runner!r} ({there.cpu}{other})"
    kinds: dict[Kind, str] = {"times": "latency", "memory": "memory", "answers": "accuracy"}
    measured = [words for kind, words in kinds.items() if not lacking(runner, kind)]
    said = f"{', '.join(measured)} and the profile were measured by {name}."
    if lacking(runner, "profile"):
        said = f"golden inputs and a few samples ran on {name}."
    elif not measured:
        said = f"coverage is of the graph as {name} runs it."
    return [said[0].upper() + said[1:], *_elsewhere(case, kinds), *filter(None, [getattr(runner, "remark", "")])]


def _elsewhere(case: Case, kinds: Mapping[Kind, str]) -> list[str]:
    """What another runner measured, and why."""
    given = {kind: words for kind, words in kinds.items() if not lacking(case.giving(kind), kind)}
    if case.reference is None:
        given.pop("answers", None)
    told = {words: lacking(case.runner, kind) for kind, words in given.items()}
    return [f"{words.capitalize()} was measured on this machine ({why})." for words, why in told.items() if why]
