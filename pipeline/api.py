"""The same work as the command line, from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline.bundle.graph import read_graphs
from pipeline.bundle.manifest import SOURCE_EVALUATION, read_manifest
from pipeline.bundle.records import Metadata, read_metadata
from pipeline.checks.answers import ANSWERS
from pipeline.checks.decides import judge_stage
from pipeline.checks.left_in_float import Reasons
from pipeline.checks.measurements import Case, measure
from pipeline.checks.reference import FloatReference
from pipeline.checks.user_metric import UserMetric
from pipeline.config.job import DEFAULT_MODEL, DEFAULT_TARGET, Job
from pipeline.config.loading import load_target
from pipeline.config.target import Target
from pipeline.core.artifact import Artifact
from pipeline.core.errors import IntegrityError, UsageError
from pipeline.core.report_types import (
    PassReport,
    QuantizationCheck,
    RangeCheck,
    Report,
    StageRecord,
    TensorFormat,
)
from pipeline.core.run_stages import Outcome, execute, run_stages
from pipeline.core.silence import silence_output
from pipeline.core.stage import Stage
from pipeline.core.store import Store
from pipeline.core.types import Progress, Scheme, StrictModel, silent
from pipeline.devices import RUNNERS
from pipeline.formats.scheme import SchemeFormats
from pipeline.plan.build import Plan, apply_overrides, make_plan
from pipeline.plan.stage_titles import title_of
from pipeline.report.assemble import Subject, assemble
from pipeline.report.calibration import calibration_notes
from pipeline.report.comparison.cache import comparison_key, known_comparison
from pipeline.report.comparison.text import uncompared
from pipeline.report.output_folder import MODEL, output_folder, require_output
from pipeline.report.publish import publish, publish_reports
from pipeline.report.sparsity import sparsity_notes, with_storage
from pipeline.report.trials import compared_trials
from pipeline.report.write import read_report
from pipeline.runtime.behaviour import PROBE, Behaviour, behaviour_in

Found = TypeVar("Found", bound=StrictModel)


class Console:
    """What a caller may want to see while work goes on. This one shows nothing; the command line has its own."""

    verbose = False

    def heading(self, title: str) -> None:
        """What the stages that follow are for, where there is more than one such thing."""

    def begin(self, title: str) -> Progress:  # noqa: ARG002  # a subclass shows it
        return silent

    def finished(self, stage: Stage, outcome: Outcome) -> None:
        """A stage is done."""


@dataclass(frozen=True)
class Result:
    """A report, and the folder that holds it and the bundle."""

    report: Report
    folder: Path


def default_store() -> Path:
    """`EDGE_STORE`, else `edge-pipeline` in the user's cache folder (XDG base directory specification)."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("EDGE_STORE") or Path(cache) / "edge-pipeline")


def export(
    model: str = DEFAULT_MODEL,
    target: str = DEFAULT_TARGET,
    *,
    store: Path | None = None,
    console: Console | None = None,
    **options: Any,
) -> Result:
    """Take a model all the way to a gated bundle.

    `options` are the fields of `config.job.Job` (recipe, output, opset, calibration_data, ...). The verdict is
    `result.report.verdict`; its budgets failing raises nothing. Raises UsageError for bad options or files,
    StageError if a stage fails.
    """
    job = Job.from_data({"model": model, "target": target, **options}, "the options")
    return run_export(make_plan(job), Store(store or default_store()), console or Console())


def run_export(plan: Plan, store: Store, console: Console) -> Result:
    """Run a plan's stages, publish the bundle, check it and write the reports."""
    baseline = read_report(plan.job.baseline) if plan.job.baseline else None
    folder = output_folder(plan.job.output, plan.target.name, plan.source.name)
    store.prepare()
    with store.in_use():
        outcomes = run_stages(
            plan.stages,
            store,
            lambda name: console.begin(title_of(name)),
            console.finished,
            console.verbose,
        )
        bundle = outcomes["bundle"].artifact
        found = measure(_case(plan, outcomes), lambda title: console.begin(f"check {title}"))
        subject = _subject_of(plan, outcomes)
        trials, notes = compared_trials(store.root, subject, outcomes, found)
        subject = replace(subject, notes=(*subject.notes, *notes))
        key = comparison_key(
            subject.bundle_digest,
            outcomes["samples.evaluation"].artifact.digest,
            plan.target.shape,
            plan.job.metric,
        )
        comparison = known_comparison(store.root, key)
        if comparison is None and plan.recipe.passes:
            subject = replace(subject, notes=(*subject.notes, uncompared(trials)))
        report = assemble(subject, found, trials, baseline, comparison)
        publish(folder, bundle.path, report, outcomes["model"].artifact.path if "model" in outcomes else None)
    return Result(report, folder)


def _case(plan: Plan, outcomes: dict[str, Outcome]) -> Case:
    """The bundle that the plan's stages made."""
    made = {name: outcome.artifact for name, outcome in outcomes.items()}
    return Case(
        made["bundle"].path,
        plan.target,
        plan.scheme,
        _reasons(plan, outcomes),
        reference=float_reference(outcomes),
        metric=plan.metric,
        answers=made[ANSWERS].path,
        quantization=_read(made, "compare", QuantizationCheck),
        ranges=_read(made, "outside", RangeCheck),
    )


def _read(made: Mapping[str, Artifact], stage: str, kind: type[Found]) -> Found | None:
    """What a check among the stages found; None where the export had none."""
    return kind.model_validate(made[stage].metadata) if stage in made else None


def float_reference(outcomes: dict[str, Outcome]) -> FloatReference:
    """Where the float model and its outputs are, of the plan whose outcomes these are."""
    names = ("trace.float", "samples.evaluation", "reference")
    of_float, evaluation, reference = (outcomes[name].artifact.path for name in names)
    tokenized = [name for name in outcomes if name.startswith("samples.evaluation.")]  # anew, for a trimmed vocabulary
    own = outcomes[tokenized[-1]].artifact.path if tokenized else evaluation
    behaviour = Behaviour.model_validate(outcomes[PROBE].artifact.metadata)
    return FloatReference(of_float, own, reference, evaluation, behaviour)


def _reasons(plan: Plan, outcomes: dict[str, Outcome]) -> Reasons:
    return left_reasons(outcomes["quantize"].artifact if "quantize" in outcomes else None, plan.scheme)


def _subject_of(plan: Plan, outcomes: dict[str, Outcome]) -> Subject:
    facts = {name: outcome.artifact.metadata for name, outcome in outcomes.items()}
    rebuilt = [name for name, outcome in outcomes.items() if outcome.rebuilt]
    notes = [f"The stored result of stage {name} was damaged; it was built again." for name in rebuilt]
    passes = tuple(
        with_storage(PassReport.from_data(values, f"the report of stage {name}"), plan.scheme)
        for name, values in facts.items()
        if name.startswith("compress.")
    )
    return Subject(
        model=plan.source.name,
        model_digest=plan.source.digest,
        task=plan.source.task.name,
        recipe=plan.recipe.name,
        scheme=plan.scheme,
        bundle_digest=read_manifest(outcomes["bundle"].artifact.path, stored=True)["digest"],
        calibration=facts.get("samples.calibration", {}),
        passes=passes,
        stages=tuple(
            StageRecord(name=name, key=o.artifact.key, cached=o.cached, seconds=round(o.seconds, 3))
            for name, o in outcomes.items()
        ),
        formats=stored_formats(outcomes["quantize"].artifact if "quantize" in outcomes else None),
        notes=(
            *plan.notes,
            *notes,
            *_stage_notes(facts),
            *_saved_notes(facts.get("model")),
            *sparsity_notes(passes),
            *calibration_notes(facts),
            *_scale_notes(facts.get("quantize", {}).get("float32_scales", [])),
        ),
    )


def _saved_notes(saved: dict[str, Any] | None) -> list[str]:
    if saved is None:
        return []
    if saved["loads"] == "transformers":
        return [f"The compressed PyTorch model is in {MODEL}/: transformers loads it, and so does edge (--model)."]
    return [
        f"The compressed PyTorch model is in {MODEL}/ as weights.safetensors and the edits that give their shapes: "
        f"{saved['reason']}."
    ]


def _stage_notes(facts: dict[str, dict[str, Any]]) -> list[str]:
    """What stages have to say beside their figures."""
    return [note for values in facts.values() for note in values.get("notes", [])]


def _scale_notes(weights: Sequence[str]) -> list[str]:
    if not weights:
        return []
    return [
        f"float16 cannot hold the scales of {', '.join(weights)}: they are stored as float32, which takes more bytes."
    ]


def check(
    bundle: str | Path,
    target: str = DEFAULT_TARGET,
    *,
    baseline: str | Path | None = None,
    output: str | Path | None = None,
    store: Path | None = None,
    console: Console | None = None,
    budgets: dict[str, float] | None = None,
    metric: UserMetric | None = None,
) -> Report:
    """Check an existing bundle against a target's budgets, without rebuilding it.

    The float reference comes from the store; without it, the budgets that need it are NOT_MEASURED. With `output`,
    the reports are written there. `metric`: see `load_user_metric`; a bundle remembers none.
    UsageError if the bundle is damaged or is none.
    """
    folder = Path(bundle)
    if output is not None:
        require_output(Path(output))
        _require_outside(Path(output), folder)
    manifest = read_manifest(folder)
    read_graphs(folder)
    earlier = read_report(Path(baseline)) if baseline else None
    aimed = apply_overrides(load_target(target), Job(target=target, budgets=budgets or {}))
    RUNNERS.require(aimed.runner)
    place = Store(store or default_store())
    place.prepare()
    console = console or Console()
    with place.in_use():
        keys = manifest["provenance"]["store"]
        inputs = _stored(place, keys)
        evaluation = SOURCE_EVALUATION if SOURCE_EVALUATION in keys else "evaluation"
        reference = _stored_reference(inputs, evaluation)
        metadata = read_metadata(folder)
        reasons = left_reasons(inputs.get("plan"), metadata.scheme)
        notes = _tried(place, aimed, inputs, evaluation, metric)
        case = Case(
            folder,
            aimed,
            metadata.scheme,
            reasons,
            reference=reference,
            metric=metric,
            quantization=_read(inputs, "compare", QuantizationCheck),
            ranges=_read(inputs, "outside", RangeCheck),
        )
        found = measure(case, lambda title: console.begin(f"check {title}"))
    comparison = None
    if "evaluation" in inputs:
        key = comparison_key(manifest["digest"], inputs["evaluation"].digest, aimed.shape, None)
        comparison = known_comparison(place.root, key)
    report = assemble(
        _subject_in(manifest, metadata, stored_formats(inputs.get("plan")), notes),
        found,
        (),
        earlier,
        comparison,
    )
    if output is not None:
        publish_reports(report, Path(output))
    return report


def _require_outside(output: Path, bundle: Path) -> None:
    """UsageError for reports inside the bundle, which would then hold files that its manifest does not list."""
    if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(bundle)):
        raise UsageError(
            f"The output {output} lies inside the bundle {bundle}.", "Name another folder with -o/--output."
        )


def _stored(store: Store, keys: dict[str, str]) -> dict[str, Artifact]:
    """The artifacts that a bundle was made from, as far as the store still has them undamaged."""
    found = {}
    for role, key in keys.items():
        try:
            artifact = store.find(key)
        except IntegrityError:  # said as NOT_MEASURED; an export builds it again
            continue
        if artifact is not None:
            found[role] = artifact
    return found


def _stored_reference(inputs: dict[str, Artifact], source_evaluation: str) -> FloatReference | None:
    roles = ("float", "evaluation", "reference", source_evaluation)
    if any(role not in inputs for role in (*roles, PROBE)):
        return None
    of_float, evaluation, expected, source = (inputs[role].path for role in roles)
    return FloatReference(of_float, evaluation, expected, source, behaviour_in(inputs))


def left_reasons(plan: Artifact | None, scheme: Scheme) -> Reasons:
    """Why weights stayed in float: what the quantization plan says of each; without one, what is known of all."""
    if plan is not None:
        left = {entry["weight"]: entry["reason"] for entry in plan.metadata["left_in_float"]}
        stored = {f"{weight}.codes": reason for weight, reason in plan.metadata.get("stored_only", {}).items()}
        return Reasons(left | stored)
    if not SchemeFormats(scheme).rounds:
        return Reasons(without_plan=f"the scheme {scheme.name} keeps weights in float")
    return Reasons(without_plan="not known: the quantization plan is not in the store; run the export again")


def stored_formats(plan: Artifact | None) -> tuple[TensorFormat, ...]:
    """How the quantization plan stores every weight; nothing without one, or of one that does not say it yet."""
    entries = plan.metadata.get("formats", ()) if plan is not None else ()
    return tuple(TensorFormat.model_validate(entry) for entry in entries)


def _tried(
    store: Store, target: Target, inputs: dict[str, Artifact], evaluation: str, metric: UserMetric | None
) -> tuple[str, ...]:
    """The stage `judge` for this target's limits, which may be others than the export's; its notes."""
    given = {"float": "float", "evaluation": evaluation, PROBE: PROBE}
    if any(role not in inputs for role in given.values()):
        return ()
    with silence_output():
        outcome = execute(judge_stage(target, metric), {name: inputs[role] for name, role in given.items()}, store)
    return tuple(outcome.artifact.metadata["notes"])


def _subject_in(
    manifest: dict[str, Any], metadata: Metadata, formats: tuple[TensorFormat, ...], notes: tuple[str, ...]
) -> Subject:
    provenance = manifest["provenance"]
    return Subject(
        model=provenance["model"],
        model_digest=provenance["model_digest"],
        task=metadata.task,
        recipe=provenance["recipe"],
        scheme=metadata.scheme,
        bundle_digest=manifest["digest"],
        calibration={},
        passes=(),
        stages=(),
        formats=formats,
        notes=("An existing bundle was checked; nothing was rebuilt.", *notes),
    )
