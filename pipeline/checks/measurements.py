"""All measurements of one bundle: each in its place, or the reason why it is not there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pipeline.bundle.golden import golden_arrays, read_golden
from pipeline.bundle.graph import read_graph
from pipeline.bundle.manifest import bundle_bytes
from pipeline.bundle.records import METADATA, read_metadata
from pipeline.checks.accuracy import measure_accuracy, suspicious, unused_labels
from pipeline.checks.answers import BATCH, write_answers
from pipeline.checks.breakdown import operator_times, tensor_groups
from pipeline.checks.compare import sqnr_figure
from pipeline.checks.coverage import coverage
from pipeline.checks.left_in_float import Reasons, Stored
from pipeline.checks.reference import evaluation_folders, read_dataset
from pipeline.checks.timing import TIMED, measure_latency
from pipeline.checks.user_metric import UserMetric, collect, with_metric
from pipeline.checks.weights import Graph, Weight
from pipeline.config.target import Runtime, Shape, Target
from pipeline.core.errors import IntegrityError
from pipeline.core.report_types import (
    Coverage,
    DatasetAccuracy,
    LatencyResult,
    MemoryResult,
    OperatorTime,
    QuantizationCheck,
    RangeCheck,
    TensorGroup,
)
from pipeline.core.types import Evidence, Figure, Progress, computed
from pipeline.devices import RUNNERS
from pipeline.devices.memory import measure_memory
from pipeline.devices.ort_profile import profile
from pipeline.devices.runner import Runner, subject_of
from pipeline.devices.worker import Subject
from pipeline.runtime.behaviour import Behaviour
from pipeline.runtime.feeds import write_feed
from pipeline.runtime.session import make_session
from pipeline.source.samples import open_samples
from pipeline.tasks.registry import OUTPUTS, fidelity_budgets
from pipeline.trace.graph import MODEL

Begin = Callable[[str], Progress]
"""Called with the title of a measurement that starts; returns its progress callback."""


@dataclass(frozen=True)
class FloatReference:
    """Where the uncompressed float model and its outputs on the evaluation sets are (artifact folders).

    `evaluation`: the samples as the bundle takes them; `source_evaluation`: as the float model does, which has another
    tokenizer where the bundle's vocabulary was trimmed. `behaviour`: how the float model answers.
    """

    float_model: Path
    evaluation: Path
    reference: Path
    source_evaluation: Path
    behaviour: Behaviour


@dataclass
class Measurements:
    """Figures by budget kind, what they were made from, why others are missing, and which do not apply to the model.

    `weights`: as the bundle stores them; `runtime`: what was measured with; `takes_text`: whether the length of its
    inputs is counted in tokens. `notes`: what every reader must know of how the figures were got; `warnings`: what
    looks wrong.
    """

    figures: dict[str, Figure] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    inapplicable: dict[str, str] = field(default_factory=dict)
    latency: LatencyResult | None = None
    memory: MemoryResult | None = None
    accuracy: tuple[DatasetAccuracy, ...] = ()
    coverage: Coverage | None = None
    operators: tuple[OperatorTime, ...] = ()
    float_operators: tuple[OperatorTime, ...] = ()
    tensors: tuple[TensorGroup, ...] = ()
    weights: tuple[Weight, ...] = ()
    runtime: Runtime = field(default_factory=Runtime)
    takes_text: bool = False
    quantization: QuantizationCheck | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    ranges: RangeCheck | None = None

    def compared(self, check: QuantizationCheck) -> None:
        """Take in what the stage `compare` found."""
        self.quantization = check
        self.figures["min_sqnr_db"] = sqnr_figure(check)


NO_REFERENCE = (
    "the float reference is not in the store (made by an export that was cleaned away or ran elsewhere); "
    "run the export again"
)


def measure(
    bundle: Path,
    target: Target,
    reference: FloatReference | None,
    reasons: Reasons,
    begin: Begin,
    metric: UserMetric | None = None,
    answers: Path | None = None,
) -> Measurements:
    """Measure everything that a budget can ask for, latency and memory in processes of their own.

    `reasons`: why weights were left in float, for the coverage table; `answers`: the bundle's outputs on the evaluation
    sets, where its export has just made them (else they are made here).
    """
    found = Measurements(runtime=target.runtime, takes_text=_takes_text(bundle))
    found.figures["bundle_mb"] = computed(bundle_bytes(bundle) / 1e6, "MB", "all files of the bundle")
    found.missing["min_sqnr_db"] = "no quantized graph was compared with its float one"
    found.missing["max_power_w"] = "no power model of this device exists yet"
    runner = RUNNERS.get(target.runner)
    with tempfile.TemporaryDirectory(prefix="edge-check-") as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_feed(inputs, example_feed(bundle, target.shape))
        subject = subject_of(bundle / MODEL, inputs, target.runtime)
        _latency(found, runner, subject, target, reference, begin("latency"))
        _memory(found, runner, subject, begin("memory"))
        _profile(found, runner, subject, bundle, reference, reasons, begin("profile"))
        _accuracy(found, bundle, target.runtime, reference, begin("accuracy"), metric, answers, Path(scratch))
    return found


def _takes_text(bundle: Path) -> bool:
    return read_metadata(bundle).max_length is not None


def example_feed(bundle: Path, shape: Shape) -> dict[str, Any]:
    """Inputs of the shape that the target measures at: the golden sample's values, repeated to fill it.

    Real values, since data-dependent kernels (dynamic ranges) must see what an app sees.
    """
    arrays, metadata = golden_arrays(bundle, 0, read_golden(bundle).inputs), read_metadata(bundle)
    longest = min(shape.sequence_length, metadata.max_length or shape.sequence_length)  # apps cut texts to the latter
    feed = {}
    for entry in metadata.inputs:
        if entry.name not in arrays:
            raise IntegrityError(f"The bundle {bundle} has no golden input {entry.name!r}.", "Export it again.")
        golden = arrays[entry.name]
        if not _fits(entry.shape, golden.shape):
            raise IntegrityError(
                f"The bundle {bundle} has a golden input {entry.name!r} of {list(golden.shape)}, where {METADATA} says "
                f"{list(entry.shape)}.",
                "Export it again.",
            )
        sizes = {"batch": shape.batch_size, "sequence": longest}
        if golden.dtype.kind == "f":  # a recording's length is not counted in tokens
            sizes = {"batch": shape.batch_size}
        wanted = tuple(
            sizes.get(d, own) if isinstance(d, str) else int(d)
            for d, own in zip(entry.shape, golden.shape, strict=True)
        )
        feed[entry.name] = np.resize(golden, wanted).astype(golden.dtype)
    return feed


def _fits(said: Sequence[int | str], shape: Sequence[int]) -> bool:
    """Whether a shape has the axes that are said, the named ones of any size."""
    return len(said) == len(shape) and all(isinstance(d, str) or d == own for d, own in zip(said, shape, strict=True))


def _latency(
    found: Measurements,
    runner: Runner,
    subject: Subject,
    target: Target,
    reference: FloatReference | None,
    done: Progress,
) -> None:
    float_model = reference.float_model / MODEL if reference else None
    limits = _limits(target, runner.evidence, float_model is not None)
    found.latency = measure_latency(runner, subject, float_model, limits, progress=done)
    found.figures["latency_p50_ms"] = found.latency.p50
    found.figures["latency_p95_ms"] = found.latency.p95
    if found.latency.speedup is None:
        found.missing["min_speedup"] = NO_REFERENCE
    else:
        found.figures["min_speedup"] = found.latency.speedup
    done(1, 1)


def _limits(target: Target, evidence: Evidence, with_float: bool) -> dict[str, float]:
    """What the timing has to decide: the limits that a figure with this evidence may pass or fail."""
    names = TIMED if with_float else TIMED[1:]
    budgets = {name: target.budgets[name] for name in names if name in target.budgets}
    return {name: budget.limit for name, budget in budgets.items() if evidence in budget.evidence}


def _memory(found: Measurements, runner: Runner, subject: Subject, done: Progress) -> None:
    found.memory = measure_memory(runner, subject)
    found.figures["load_ms"] = found.memory.load_ms
    peaks = [peak for peak in (found.memory.load_peak_mb, found.memory.run_peak_mb) if peak is not None]
    if peaks:
        found.figures["peak_memory_mb"] = max(peaks, key=lambda figure: figure.value)
    else:
        found.missing["peak_memory_mb"] = found.memory.reason
    done(1, 1)


def _profile(
    found: Measurements,
    runner: Runner,
    subject: Subject,
    bundle: Path,
    reference: FloatReference | None,
    reasons: Reasons,
    done: Progress,
) -> None:
    optimized = Path(subject.inputs).with_name("optimized.onnx")
    records = profile(runner, subject, optimized)
    found.coverage = coverage(onnx.load(optimized, load_external_data=False), records, Stored(bundle / MODEL, reasons))
    found.operators = operator_times(records)
    model = read_graph(bundle)
    found.tensors, found.weights = tensor_groups(model), Graph(model).weights
    found.figures["min_weight_coverage"] = found.coverage.weights
    found.figures["min_mac_coverage"] = found.coverage.macs
    done(1, 2)
    if reference is not None:
        of_float = replace(subject, model=str(reference.float_model / MODEL))
        found.float_operators = operator_times(profile(runner, of_float, optimized.with_name("float.onnx"), runs=10))
    done(2, 2)


_FIDELITY_BUDGETS = fidelity_budgets()


def _accuracy(
    found: Measurements,
    bundle: Path,
    runtime: Runtime,
    reference: FloatReference | None,
    done: Progress,
    metric: UserMetric | None,
    answers: Path | None,
    scratch: Path,
) -> None:
    if reference is None:
        found.missing |= dict.fromkeys(("max_accuracy_drop", *_FIDELITY_BUDGETS), NO_REFERENCE)
        return
    behaviour = reference.behaviour
    judge = OUTPUTS.get(behaviour.family)
    found.notes += tuple(behaviour.notes(metric is not None))
    for name in _FIDELITY_BUDGETS:
        if name not in judge.limits:
            found.inapplicable[name] = f"it does not apply to a model that is judged by {judge.words}"
    if answers is None:
        answers = scratch
        write_answers(bundle / MODEL, runtime, behaviour, reference.evaluation, answers, done)
    results = measure_accuracy(behaviour, reference.evaluation, reference.reference, answers)
    if metric is not None:
        results = measure_user_metric(metric, results, bundle / MODEL, runtime, reference)
    found.accuracy = results
    found.warnings += tuple(suspicious(results))
    sets = map(read_dataset, evaluation_folders(reference.evaluation))
    found.notes += tuple(filter(None, (unused_labels(behaviour.family, dataset) for dataset in sets)))
    found.figures["max_accuracy_drop"] = _drop_figure(results)
    for name, score in judge.limits.items():
        found.figures[name] = _score_figure(results, score)


def _drop_figure(results: tuple[DatasetAccuracy, ...]) -> Figure:
    worst = max(results, key=lambda result: result.drop)
    note = f"worst set: {worst.dataset} ({worst.primary}{_in_batches(worst.batch > 1)})"
    return computed(worst.drop, "points", note).model_copy(update={"low": worst.low, "high": worst.high})


def _score_figure(results: tuple[DatasetAccuracy, ...], score: str) -> Figure:
    lowest = min(results, key=lambda result: result.worst(score))
    value = lowest.worst(score)
    return computed(value, "share", f"worst set: {lowest.dataset}{_in_batches(value < lowest.scores[score])}")


def _in_batches(batched: bool) -> str:
    return f", in batches of {BATCH}" if batched else ""


def measure_user_metric(
    metric: UserMetric,
    results: tuple[DatasetAccuracy, ...],
    bundle: Path,
    runtime: Runtime,
    reference: FloatReference,
) -> tuple[DatasetAccuracy, ...]:
    """The results with the user's metric in front, over all outputs of both models. The float model runs as its
    reference did: with ONNX Runtime's defaults."""
    sessions = make_session(reference.float_model / MODEL, Runtime()), make_session(bundle, runtime)
    scored = []
    folders = zip(*map(evaluation_folders, (reference.source_evaluation, reference.evaluation)), strict=True)
    for result, (original, folder) in zip(results, folders, strict=True):
        dataset = read_dataset(folder)
        references = metric.references_for(dataset["name"], dataset["labels"], dataset["samples"])
        samples = open_samples(original), open_samples(folder)
        of_float, of_bundle = map(collect, sessions, samples)
        scored.append(with_metric(result, metric.function, references, of_float, of_bundle))
    return tuple(scored)
