"""All measurements of one bundle. What budgets make of them stands in checks/budgets/."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import onnx

from pipeline.bundle.example_feed import example_feed
from pipeline.bundle.graph import read_graphs
from pipeline.bundle.manifest import bundle_bytes
from pipeline.bundle.records import model_file, read_metadata
from pipeline.checks.accuracy import measure_accuracy, suspicious, unused_labels
from pipeline.checks.answers import write_answers
from pipeline.checks.breakdown import operator_times, tensor_groups
from pipeline.checks.coverage import coverage
from pipeline.checks.left_in_float import Reasons, Stored
from pipeline.checks.metric_runs import measure_user_metric
from pipeline.checks.reference import FloatReference
from pipeline.checks.timing import SECONDS, TIMED, measure_latency
from pipeline.checks.user_metric import UserMetric
from pipeline.checks.weights import Graph, Weight
from pipeline.config.target import Target
from pipeline.core.report_types import (
    Coverage,
    DatasetAccuracy,
    LatencyResult,
    Measured,
    OperatorTime,
    QuantizationCheck,
    RangeCheck,
)
from pipeline.core.types import Progress, Scheme
from pipeline.data.samples import evaluation_folders, read_dataset
from pipeline.devices import RUNNERS
from pipeline.devices.memory import measure_memory
from pipeline.devices.ort_profile import NodeRecord, profile
from pipeline.devices.runner import Runner, subject_of
from pipeline.devices.worker import Subject
from pipeline.graph.files import graph_file
from pipeline.runtime.feeds import write_feed

Begin = Callable[[str], Progress]
"""Called with the title of a measurement that starts; returns its progress callback."""
Times: TypeAlias = tuple[OperatorTime, ...]


@dataclass(frozen=True)
class Case:
    """A bundle to measure for a target, and what is known of how it was made.

    Attributes:
        bundle: Its folder.
        target: Whose runtime, shape, runner and budgets count.
        scheme: The bundle's.
        reasons: Why weights were left in float, for the coverage table.
        reference: The float model; None if it is not in the store.
        metric: The user's own.
        answers: The bundle's outputs on the evaluation sets, where its export has just made them.
        quantization: What the stage `compare` found, if there is one.
        ranges: What the stage `outside` found, if there is one.
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

    @property
    def model(self) -> Path:
        """The file of its graph."""
        return model_file(self.bundle)

    @property
    def runner(self) -> Runner:
        return RUNNERS.get(self.target.runner)


@dataclass(frozen=True)
class Measurements:
    """What was measured of one bundle: the metrics of budgets make figures and explanations of it, the report shows it.

    Attributes:
        case: The bundle.
        records: What the report shows as it is.
        megabytes: Of all files of the bundle.
        weights: As the bundle stores them.
        takes_text: Whether the length of its inputs is counted in tokens.
        notes: What every reader must know of how the figures were got.
        warnings: What looks wrong.
    """

    case: Case
    records: Measured
    megabytes: float
    weights: tuple[Weight, ...] = ()
    takes_text: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def measure(case: Case, begin: Begin) -> Measurements:
    """Measure everything that a budget can ask for; latency, memory and the profile on the target's runner."""
    with tempfile.TemporaryDirectory(prefix="edge-check-") as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_feed(inputs, example_feed(case.bundle, case.target.shape))
        subject = subject_of(case.model, inputs, case.target.runtime)
        latency = _latency(case, subject, begin("latency"))
        done = begin("memory")
        memory = measure_memory(case.runner, subject)
        done(1, 1)
        covered, operators, float_operators = _profile(case, subject, begin("profile"))
        accuracy = _accuracy(case, Path(scratch), begin("accuracy"))
    (model,) = read_graphs(case.bundle).values()
    return Measurements(
        case,
        Measured(
            latency=latency,
            memory=memory,
            accuracy=accuracy,
            coverage=covered,
            operators=operators,
            float_operators=float_operators,
            tensors=tensor_groups(model),
            quantization=case.quantization,
            ranges=case.ranges,
        ),
        bundle_bytes(case.bundle) / 1e6,
        Graph(model).weights,
        takes_text=read_metadata(case.bundle).max_length is not None,
        notes=(*_accuracy_notes(case), *_runner_notes(case)),
        warnings=tuple(suspicious(accuracy)),
    )


def _latency(case: Case, subject: Subject, done: Progress) -> LatencyResult:
    float_model = graph_file(case.reference.float_model) if case.reference else None
    seconds = case.target.measure_seconds or SECONDS
    result = measure_latency(case.runner, subject, float_model, _limits(case), seconds, progress=done)
    done(1, 1)
    return result


def _limits(case: Case) -> dict[str, float]:
    """What the timing has to decide: the limits that a figure of this runner may pass or fail."""
    names = TIMED if case.reference else TIMED[1:]
    budgets = {name: case.target.budgets[name] for name in names if name in case.target.budgets}
    return {name: budget.limit for name, budget in budgets.items() if case.runner.evidence in budget.evidence}


def _profile(case: Case, subject: Subject, done: Progress) -> tuple[Coverage, Times, Times]:
    """Coverage, and the times of operators in the bundle and in the float model."""
    optimized = Path(subject.inputs).with_name("optimized.onnx")
    nodes = profile(case.runner, subject, optimized)
    stored = Stored(case.model, case.reasons)
    covered = coverage(onnx.load(optimized, load_external_data=False), nodes, stored)
    done(1, 2)
    of_float: list[NodeRecord] = []
    if case.reference is not None:
        float_subject = replace(subject, model=str(graph_file(case.reference.float_model)))
        of_float = profile(case.runner, float_subject, optimized.with_name("float.onnx"), runs=10)
    done(2, 2)
    return covered, operator_times(nodes), operator_times(of_float)


def _accuracy(case: Case, scratch: Path, done: Progress) -> tuple[DatasetAccuracy, ...]:
    reference = case.reference
    if reference is None:
        return ()
    answers = case.answers
    if answers is None:
        answers = scratch
        write_answers(case.model, case.target.runtime, reference.behaviour, reference.evaluation, answers, done)
    results = measure_accuracy(reference.behaviour, reference.evaluation, reference.reference, answers)
    if case.metric is None:
        return results
    return measure_user_metric(case.metric, results, case.model, case.target.runtime, reference)


def _accuracy_notes(case: Case) -> list[str]:
    if case.reference is None:
        return []
    behaviour = case.reference.behaviour
    sets = map(read_dataset, evaluation_folders(case.reference.evaluation))
    unused = [unused_labels(behaviour.kind, dataset) for dataset in sets]
    return [*behaviour.notes(case.metric is not None), *filter(None, unused)]


def _runner_notes(case: Case) -> list[str]:
    if case.target.runner == "host":
        return []
    cpu = case.runner.info().cpu
    return [f"Latency, memory and the profile were measured by the runner {case.target.runner!r} ({cpu})."]
