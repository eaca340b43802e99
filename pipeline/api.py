"""The same work as the command line, from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from pipeline.bundle.graph import read_graphs
from pipeline.bundle.manifest import SOURCE_EVALUATION, read_manifest
from pipeline.bundle.records import bundle_graphs, read_metadata, require_runtime
from pipeline.checks.answers import ANSWERS
from pipeline.checks.decides import JUDGE, ask_tried, judge_stage, tried_in
from pipeline.checks.device_report import Reported, read_device_report
from pipeline.checks.exact_match import EXACT_MATCH
from pipeline.checks.float_reference import FloatReference
from pipeline.checks.left_in_float import Reasons
from pipeline.checks.measurements import Case, measure
from pipeline.checks.reference_folder import read_reference, too_large, write_reference
from pipeline.checks.user_metric import UserMetric
from pipeline.config.job import DEFAULT_MODEL, DEFAULT_TARGET, Job, Options
from pipeline.config.loading import load_target
from pipeline.config.target import Target
from pipeline.core.artifact import Artifact
from pipeline.core.budgets import PREVIOUS
from pipeline.core.errors import IntegrityError, UsageError
from pipeline.core.paths import anchored
from pipeline.core.report_types import (
    ExactMatch,
    QuantizationCheck,
    RangeCheck,
    Report,
    WrittenTexts,
)
from pipeline.core.run_stages import Outcome, execute, run_stages
from pipeline.core.silence import silence_output
from pipeline.core.stage import Stage
from pipeline.core.store import Store, default_store
from pipeline.core.types import Progress, StrictModel, silent
from pipeline.devices import runner_of
from pipeline.gate.baseline import Baseline
from pipeline.plan.build import Plan, apply_overrides, make_plan
from pipeline.plan.stage_titles import title_of
from pipeline.quantize.plan import stored_formats
from pipeline.report.assemble import assemble
from pipeline.report.comparison.cache import comparison_key, known_comparison
from pipeline.report.comparison.text import uncompared
from pipeline.report.output_folder import REFERENCE, output_folder, require_output
from pipeline.report.publish import publish, publish_reports
from pipeline.report.subject import Subject
from pipeline.report.trials import compared_trials
from pipeline.report.write import read_report
from pipeline.runtime.behaviour import PROBE
from pipeline.source.in_memory import named

if TYPE_CHECKING:
    from torch import nn

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


class Calls(Console):
    """Tells a function how far each step is: its title, what is done, and of how much."""

    def __init__(self, progress: Callable[[str, int, int], None]) -> None:
        self._progress = progress

    def begin(self, title: str) -> Progress:
        return partial(self._progress, title)


def console_of(console: Console | None, progress: Callable[[str, int, int], None] | None) -> Console:
    """The console that a call gave, else one for its function, else a silent one."""
    return console or (Calls(progress) if progress else Console())


@dataclass(frozen=True)
class Result:
    """A report, and the folder that holds it and the bundle."""

    report: Report
    folder: Path

    def __repr__(self) -> str:
        return f"Result({self.report!r}, folder={str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return f"{self.report._repr_html_()}<p>{escape(str(self.folder))}</p>"


def export(
    model: str | nn.Module = DEFAULT_MODEL,
    target: str = DEFAULT_TARGET,
    *,
    processor: Any = None,
    example_inputs: Mapping[str, Any] | None = None,
    store: Path | None = None,
    console: Console | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Unpack[Options],
) -> Result:
    """Take a model all the way to a gated bundle.

    Args:
        model: A name as for the command line, or a PyTorch model, with `processor` or `example_inputs`.
        target: Whose budgets count.
        processor: The tokenizer, image processor or feature extractor of a transformers model.
        example_inputs: Tensors by input name of any other PyTorch model; the first axis of each is the batch.
        store: The folder with what was made before; None: the user's.
        console: Shows what goes on.
        progress: Without a console, is called with the title of a step, what is done, and of how much.
        options: As the flags of `edge export`.

    Returns:
        The report and its folder. The verdict is `result.report.verdict`: budgets that fail raise nothing.

    Raises:
        UsageError: For bad options or files.
        StageError: If a stage fails.
    """
    with named(model, processor, example_inputs) as name:
        job = Job.from_data({"model": name, "target": target, **options}, "the options")
        return run_export(make_plan(job), Store(store or default_store()), console_of(console, progress))


def run_export(plan: Plan, store: Store, console: Console) -> Result:
    """Run a plan's stages, publish the bundle, check it and write the reports."""
    baseline = _baseline(plan.job.baseline, plan.job.tolerances)
    folder = output_folder(plan.job.output, plan.target.name, plan.source.name, plan.recipe.name)
    store.prepare()
    with store.in_use():
        outcomes = run_stages(
            plan.stages,
            store,
            lambda name: console.begin(title_of(name)),
            console.finished,
            console.verbose,
        )
        made = {name: outcome.artifact for name, outcome in outcomes.items()}
        bundle = made["bundle"]
        held = FloatReference.of_export(made)
        found = measure(_case(plan, made, held), lambda title: console.begin(f"check {title}"))
        subject = Subject.of_export(
            plan.source,
            plan.recipe.name,
            plan.scheme,
            read_manifest(bundle.path, stored=True)["digest"],
            outcomes,
            stored_formats(made.get("quantize")),
            tuple(filter(None, (*plan.notes, too_large(held)))),
        )
        trials, notes = compared_trials(store.root, subject, outcomes, found)
        subject = replace(subject, notes=(*subject.notes, *notes))
        key = comparison_key(
            subject.bundle_digest,
            made["samples.evaluation"].digest,
            plan.target.shape,
            plan.job.metric,
            plan.target.runner,
        )
        comparison = known_comparison(store.root, key)
        if comparison is None and plan.recipe.passes:
            subject = replace(subject, notes=(*subject.notes, uncompared(trials)))
        report = assemble(subject, found, trials, baseline, comparison)
        publish(
            folder,
            bundle.path,
            report,
            made["model"].path if "model" in made else None,
            partial(write_reference, bundle=subject.bundle_digest, found=found, tried=tried_in(made[JUDGE]))
            if plan.job.golden_from == "data" and not too_large(held)
            else None,
        )
    return Result(report, folder)


def _case(plan: Plan, made: Mapping[str, Artifact], reference: FloatReference) -> Case:
    """The bundle that the plan's stages made."""
    return Case(
        made["bundle"].path,
        plan.target,
        plan.scheme,
        Reasons.of_plan(made.get("quantize"), plan.scheme),
        reference=reference,
        metric=plan.metric,
        answers=made[ANSWERS].path if ANSWERS in made else None,
        quantization=_read(made, "compare", QuantizationCheck),
        ranges=_read(made, "outside", RangeCheck),
        texts=_read(made, "texts", WrittenTexts),
        exact_match=_solved(made),
    )


def _read(made: Mapping[str, Artifact], stage: str, kind: type[Found]) -> Found | None:
    """What a check among the stages found; None where the export had none."""
    return kind.model_validate(made[stage].metadata) if stage in made else None


def _solved(made: Mapping[str, Artifact]) -> tuple[ExactMatch, ...]:
    """What the stage that asks problems found, if there was one."""
    found = made[EXACT_MATCH].metadata[EXACT_MATCH] if EXACT_MATCH in made else ()
    return tuple(map(ExactMatch.model_validate, found))


def check(  # noqa: PLR0913  # all but two are given by name
    bundle: str | Path,
    target: str = DEFAULT_TARGET,
    *,
    baseline: str | Path | None = None,
    output: str | Path | None = None,
    store: Path | None = None,
    console: Console | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    budgets: dict[str, float] | None = None,
    metric: UserMetric | None = None,
    reference: str | Path | None = None,
    tolerances: Mapping[str, float] | None = None,
    runner: str | None = None,
    device_report: str | Path | None = None,
    previous: str | Path | None = None,
) -> Report:
    """Check an existing bundle against a target's budgets, without rebuilding it.

    The float reference comes from the store, or else from the folder `reference` (if None, the one of that name beside
    the bundle); without it, the budgets that need it are NOT_MEASURED. With `output`, the reports are written there.
    `metric`: see `load_user_metric`; a bundle remembers none. `tolerances`: metric -> by how much its figure may be
    worse than the `baseline`'s, in its unit; never less than half of its 95 % interval. `runner`: where to measure,
    instead of where the target says. `device_report`: a file with figures that were measured elsewhere (see
    `read_device_report` of `checks.device_report`), which stand in place of those from here. `previous`: an earlier
    bundle of the model, with which this one takes turns; more than 5 % slower fails, unless `budgets` say otherwise.
    UsageError if the bundle or its reference is damaged, is none, or belongs to another.
    """
    folder = Path(bundle)
    if output is not None:
        require_output(Path(output))
        _require_outside(Path(output), folder)
    manifest = read_manifest(folder)
    require_runtime(folder)
    read_graphs(folder)
    earlier = _baseline(baseline, tolerances or {})
    aimed = apply_overrides(
        load_target(target).for_task(read_metadata(folder).task),
        Job(target=target, budgets=_beside(previous, folder) | (budgets or {}), runner=runner),
    )
    runner_of(aimed)
    told = Reported() if device_report is None else read_device_report(Path(device_report), folder, aimed)
    place = Store(store or default_store())
    place.prepare()
    shown = console_of(console, progress)
    with place.in_use():
        keys = manifest["provenance"]["store"]
        inputs = _stored(place, keys)
        evaluation = SOURCE_EVALUATION if SOURCE_EVALUATION in keys else "evaluation"
        metadata = read_metadata(folder)
        held, notes = FloatReference.stored(inputs, evaluation), _tried(place, aimed, inputs, evaluation, metric)
        if held is None:
            held, notes = _carried(folder, reference, manifest["digest"], aimed)
        facts = held.facts if held else None
        case = Case(
            folder,
            aimed,
            metadata.scheme,
            Reasons.of_plan(inputs.get("plan"), metadata.scheme),
            reference=held,
            metric=metric,
            quantization=facts.quantization if facts else _read(inputs, "compare", QuantizationCheck),
            ranges=facts.ranges if facts else _read(inputs, "outside", RangeCheck),
            texts=facts.texts if facts else _read(inputs, "texts", WrittenTexts),
            exact_match=facts.exact_match if facts else _solved(inputs),
            previous=None if previous is None else Path(previous),
        )
        found = measure(case, lambda title: shown.begin(f"check {title}"))
    found = replace(found, reported=told.figures, notes=(*found.notes, *told.notes))
    comparison = None
    if "evaluation" in inputs:
        key = comparison_key(manifest["digest"], inputs["evaluation"].digest, aimed.shape, None, aimed.runner)
        comparison = known_comparison(place.root, key)
    report = assemble(
        Subject.of_bundle(manifest, metadata.task, metadata.scheme, stored_formats(inputs.get("plan")), notes),
        found,
        (),
        earlier,
        comparison,
    )
    if output is not None:
        publish_reports(report, Path(output))
    return report


_SLOWER = 0.95
"""Of an earlier bundle's speed: as good as it."""


def _beside(previous: str | Path | None, bundle: Path) -> dict[str, float]:
    """The budget on the speed over an earlier bundle. UsageError if that is none, or takes other inputs."""
    if previous is None:
        return {}
    earlier = Path(previous)
    read_manifest(earlier)
    require_runtime(earlier)
    ours, theirs = (sorted(bundle_graphs(folder).inputs) for folder in (bundle, earlier))
    if ours != theirs:
        raise UsageError(
            f"The bundle {earlier} takes {', '.join(theirs)}, and {bundle} takes {', '.join(ours)}.",
            "Give an earlier bundle of the same model with --previous.",
        )
    return {PREVIOUS: _SLOWER}


def _baseline(path: str | Path | None, tolerances: Mapping[str, float]) -> Baseline | None:
    """The earlier report; UsageError for tolerances without one."""
    if path is not None:
        return Baseline(read_report(Path(path)), tolerances)
    if tolerances:
        raise UsageError("Tolerances are given without a baseline.", "Name an earlier report.json with --baseline.")
    return None


def _carried(
    bundle: Path, given: str | Path | None, digest: str, target: Target
) -> tuple[FloatReference | None, tuple[str, ...]]:
    """The float reference that travels with the bundle, and what to say of it; None if there is none."""
    folder = anchored(bundle).parent / REFERENCE if given is None else Path(given)
    found = read_reference(folder, digest)
    if found is None or found.facts is None:
        if given is not None:
            raise UsageError(f"{folder} is no float reference.", "An export leaves one beside the bundle.")
        return None, ()
    said = "Accuracy was compared with what the float model answered where the bundle was made (reference/)."
    if found.facts.speedup is not None:
        said += f" The speed-up over it is the one that the export measured on {found.facts.cpu}."
    return found, (said, *ask_tried(target, found.behaviour.kind, found.facts.tried))


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
