"""A recipe beside plain quantization of the same model: built from the store, measured in one run, judged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from pipeline.api import Console, console_of
from pipeline.bundle.example_feed import example_feed
from pipeline.bundle.manifest import bundle_bytes, read_manifest
from pipeline.bundle.records import bundle_graphs
from pipeline.checks.answers import ANSWERS, answering_session, write_answers
from pipeline.checks.float_reference import FloatReference
from pipeline.checks.timing import Turns, known_within, load_words, percentile_figure, speed_figure, take_turns
from pipeline.comparison.candidates import Scored, fidelity_name, score
from pipeline.comparison.pareto_dominance import Entry, differences, dominates, nearest, on_pareto_front
from pipeline.config.job import DEFAULT_MODEL, DEFAULT_TARGET, Job, Options
from pipeline.core.errors import ResourceError, StageError, UsageError
from pipeline.core.report_types import Candidate, Comparison, Refusal, Trial
from pipeline.core.run_stages import Outcome, run_stages
from pipeline.core.stage import Stage
from pipeline.core.store import Store, default_store
from pipeline.core.types import Scheme
from pipeline.devices import runner_of
from pipeline.devices.host_info import host_info, versions
from pipeline.devices.runner import Runner, lacking, subject_of
from pipeline.graph.files import graph_megabytes, graphs_in
from pipeline.numerics.timing import FEW_PROCESSES
from pipeline.plan.build import Plan, make_plan, with_recipe
from pipeline.plan.stage_titles import title_of
from pipeline.quantize.baseline_schemes import baseline_schemes, choose
from pipeline.quantize.schemes import resolve_scheme
from pipeline.report.comparison.cache import comparison_key, keep_comparison
from pipeline.report.trial_log import append_trial, trial_scope
from pipeline.runtime.feeds import write_feed
from pipeline.source.in_memory import named

if TYPE_CHECKING:
    from torch import nn

_KNOWN_WITHIN, _SECONDS = 0.01, 90.0
"""The latencies are measured until the ratios are known within this share, or for so many seconds."""


@dataclass(frozen=True)
class Built:
    """A bundle in the store. `digest`: of its model's files alone; `answers`: this machine's on the evaluation sets;
    None where another one is asked."""

    label: str
    scheme: Scheme
    bundle: Path
    digest: str
    answers: Path | None

    @property
    def megabytes(self) -> float:
        """Of its graphs: the tokenizer and golden samples beside them are every candidate's."""
        return graph_megabytes(bundle_graphs(self.bundle))


def compare(
    model: str | nn.Module = DEFAULT_MODEL,
    target: str = DEFAULT_TARGET,
    *,
    processor: Any = None,
    example_inputs: Mapping[str, Any] | None = None,
    against: Sequence[str] = (),
    store: Path | None = None,
    console: Console | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Unpack[Options],
) -> Comparison:
    """Compare a recipe (`options["recipe"]`, else the target's) with plain quantization schemes: those of
    `quantize.baseline_schemes` named in `against`, or all.

    The other arguments are those of `export`. Raises UsageError for bad options or files, StageError if the recipe
    cannot be built, or none of the plain schemes.
    """
    with named(model, processor, example_inputs) as name:
        job = Job.from_data({"model": name, "target": target, **options}, "the options")
        place = Store(store or default_store())
        return run_comparison(make_plan(job), against, place, console_of(console, progress))


def run_comparison(plan: Plan, against: Sequence[str], store: Store, console: Console) -> Comparison:
    """Build what is not in the store, measure all bundles in one run, and keep the result for later reports."""
    runner = runner_of(plan.target)
    if reason := lacking(runner, "times"):
        raise UsageError(
            f"A comparison needs latencies, and the runner {plan.target.runner!r} has none: {reason}.",
            "Name another --runner, or leave it out.",
        )
    asked = tuple(against) or _fitting(plan)
    plans, refused = _plain_plans(plan, choose(asked))
    store.prepare()
    with store.in_use():
        builder = _Builder(store, console)
        recipe, outcomes = builder.build(_label(plan.recipe.name), plan)
        plain, failed = _build_plain(plans, recipe, builder)
        reference = FloatReference.of_export({name: outcome.artifact for name, outcome in outcomes.items()})
        built = [recipe, *plain]
        turns = _latencies(plan, runner, built, reference, console)
        scored = [_score(plan, runner, one, reference, console) for one in built]
        comparison = _judge(plan, built, scored, turns, reference, [*failed, *refused])
        _remember(store, plan, outcomes, comparison, built, scored)
    return comparison


def _label(recipe: str) -> str:
    """A recipe may be named as a plain scheme is, and differ from it by a flag."""
    return f"recipe {recipe}" if recipe in baseline_schemes() else recipe


class _Builder:
    """Runs plans one after the other; a stage that several share is shown once."""

    def __init__(self, store: Store, console: Console) -> None:
        self._store, self._console = store, console
        self._shown: set[str] = set()

    def build(self, label: str, plan: Plan) -> tuple[Built, dict[str, Outcome]]:
        self._console.heading(label)
        outcomes = run_stages(
            plan.stages,
            self._store,
            lambda name: self._console.begin(title_of(name)),
            self._finished,
            self._console.verbose,
        )
        bundle = outcomes["bundle"].artifact.path
        answers = outcomes[ANSWERS].artifact.path if ANSWERS in outcomes else None
        return Built(label, plan.scheme, bundle, model_digest(bundle), answers), outcomes

    def _finished(self, stage: Stage, outcome: Outcome) -> None:
        if outcome.artifact.key not in self._shown:
            self._shown.add(outcome.artifact.key)
            self._console.finished(stage, outcome)


def _plain_plans(plan: Plan, chosen: Sequence[str]) -> tuple[dict[str, Plan], list[Refusal]]:
    """The plan of every plain scheme to build, and why the others are not. UsageError if none is left."""
    schemes = baseline_schemes()
    refused = [Refusal(label=label, reason=_left_out(plan, label)) for label in schemes if label not in chosen]
    plans = {}
    for label in chosen:
        changes = {"name": label, "title": f"Plain {label}", "passes": (), "scheme": schemes[label]}
        plans[label] = with_recipe(plan, plan.recipe.model_copy(update=changes))
    if not plan.recipe.passes:
        itself = [label for label, other in plans.items() if _formats(other.scheme) == _formats(plan.scheme)]
        refused += [Refusal(label=label, reason="it is the recipe itself") for label in itself]
        plans = {label: other for label, other in plans.items() if label not in itself}
    if not plans:
        raise UsageError(
            f"There is nothing to compare {plan.recipe.name!r} with: {chosen[0]} is the recipe itself.",
            "Name other schemes with --against, or leave it out for all.",
        )
    return plans, refused


def _fitting(plan: Plan) -> tuple[str, ...]:
    """All plain schemes but, for a target without an NPU, those for one."""
    return tuple(label for label in baseline_schemes() if plan.target.npu or not _for_npus(label))


def _for_npus(label: str) -> bool:
    return resolve_scheme(baseline_schemes()[label], {}, "a plain scheme").everywhere is not None


def _left_out(plan: Plan, label: str) -> str:
    if _for_npus(label) and plan.target.npu is None:
        return "for NPUs, and the target has none"
    return "not asked for (--against)"


def _formats(scheme: Scheme) -> dict[str, Any]:
    return scheme.model_dump(exclude={"name"})


def _build_plain(plans: dict[str, Plan], recipe: Built, builder: _Builder) -> tuple[list[Built], list[Refusal]]:
    """The plain bundles, and why others are not among them. StageError if there is none at all."""
    plain: list[Built] = []
    refused: list[Refusal] = []
    failed: list[StageError] = []
    for label, plan in plans.items():
        try:
            built, _ = builder.build(label, plan)
        except ResourceError:
            raise
        except StageError as error:  # the scheme has nothing for this model: said in the result, and no reason to stop
            failed.append(error)
            refused.append(Refusal(label=label, reason=error.message))
            continue
        same = next((other.label for other in [recipe, *plain] if other.digest == built.digest), None)
        if same is None:
            plain.append(built)
        else:
            refused.append(Refusal(label=label, reason=f"its model is that of {same}, byte for byte"))
    if plain:
        return plain, refused
    reason = failed[0].message if failed else refused[0].reason
    raise StageError(f"There is no plain scheme to compare {recipe.label} with: {reason}")


def model_digest(bundle: Path) -> str:
    """Of the graphs' files alone: two bundles may differ in their metadata only."""
    files = read_manifest(bundle, stored=True)["files"]
    own = (file.name for graph in bundle_graphs(bundle) for file in graph.files(bundle))
    return " ".join(files[name]["sha256"] for name in own)


def _latencies(
    plan: Plan, runner: Runner, built: Sequence[Built], reference: FloatReference, console: Console
) -> Turns:
    """Times of the float model, then of each bundle. Each gets the inputs that its own app would give it."""
    progress = console.begin(f"check latency of {len(built)} bundles and the float model")
    with tempfile.TemporaryDirectory(prefix="edge-compare-") as scratch:
        inputs = [Path(scratch) / f"{number}.npz" for number in range(len(built))]
        for one, file in zip(built, inputs, strict=True):
            write_feed(file, example_feed(one.bundle, plan.target.shape))
        assert reference.float_model is not None  # noqa: S101  # these recipes were just exported
        models = [graphs_in(reference.float_model), *(bundle_graphs(one.bundle) for one in built)]
        # inputs[1]: a plain bundle has all of the float model's
        subjects = [
            subject_of(model, file, plan.target.runtime)
            for model, file in zip(models, [inputs[1], *inputs], strict=True)
        ]
        enough = known_within(_KNOWN_WITHIN, FEW_PROCESSES, 2 * FEW_PROCESSES)
        seconds = plan.target.measure_seconds or _SECONDS
        return take_turns(runner, subjects, enough, seconds, progress)


def _score(plan: Plan, runner: Runner, one: Built, reference: FloatReference, console: Console) -> Scored:
    done = console.begin(f"check accuracy of {one.label}")
    session = partial(answering_session, bundle_graphs(one.bundle), plan.target, runner)
    with tempfile.TemporaryDirectory(prefix="edge-compare-") as scratch:
        answers = one.answers or Path(scratch)
        if one.answers is None:
            write_answers(session(), reference.behaviour, reference.evaluation, answers, done)
        return score(session, reference, answers, plan.metric)


def _judge(
    plan: Plan,
    built: Sequence[Built],
    scored: Sequence[Scored],
    turns: Turns,
    reference: FloatReference,
    refused: Sequence[Refusal],
) -> Comparison:
    entries = [
        _entry(one, result, turns, place)
        for place, (one, result) in enumerate(zip(built, scored, strict=True), start=1)
    ]
    fronts = on_pareto_front(entries)
    recipe, *plain = [
        _candidate(one, result, entries, place, turns)
        for place, (one, result) in enumerate(zip(built, scored, strict=True))
    ]
    candidates = [
        candidate.model_copy(update={"on_pareto_front": on_front})
        for candidate, on_front in zip([recipe, *plain], fronts, strict=True)
    ]
    dominators = tuple(candidate.label for candidate in plain if candidate.dominates)
    if dominators:  # by differences that count, though by a hair in one respect it may be the best as measured
        candidates[0] = candidates[0].model_copy(update={"on_pareto_front": False})
    return Comparison(
        model=plan.source.name,
        model_digest=plan.source.digest,
        task=plan.source.task.name,
        target=plan.target.name,
        recipe=plan.recipe.name,
        passes=tuple(str(table["pass"]) for table in plan.recipe.passes),
        bundle_digest=read_manifest(built[0].bundle, stored=True)["digest"],
        fidelity_name=fidelity_name(reference.behaviour.kind),
        candidates=(_float_candidate(reference, turns), *candidates),
        refused=tuple(refused),
        same_bytes=nearest("size", entries[0], entries[1:]),
        same_latency=nearest("latency", entries[0], entries[1:]),
        dominated_by=dominators,
        runs=len(turns.samples_ms(0)),
        threads=plan.target.runtime.threads,
        host=host_info(),
        versions=versions(),
    )


def _entry(one: Built, result: Scored, turns: Turns, place: int) -> Entry:
    """`place`: of the bundle in the rounds."""
    chosen = turns.chosen
    return Entry(
        one.label,
        one.megabytes,
        tuple(tuple(map(float, block.wall[chosen.rounds(block), place])) for block in chosen.blocks),
        result.drop,
        result.fidelity,
        processes=tuple(block.process for block in chosen.blocks),
        unsure=f"the machine was loaded while latencies were measured: {load_words(turns.blocks)}"
        if chosen.loaded
        else "",
    )


def _candidate(one: Built, result: Scored, entries: Sequence[Entry], place: int, turns: Turns) -> Candidate:
    recipe, entry = entries[0], entries[place]
    latency = percentile_figure(turns, place + 1, 0.5)
    speedup = speed_figure(turns, 0, place + 1)
    against, incomparable_reason = ((), "") if entry is recipe else differences(recipe, entry)
    return Candidate(
        label=one.label,
        kind="recipe" if entry is recipe else "plain",
        scheme=one.scheme.name,
        megabytes=entry.megabytes,
        latency=latency,
        speedup=speedup,
        drop=result.drop.value,
        fidelity=None if result.fidelity is None else result.fidelity.value,
        accuracy=result.accuracy,
        dominates=not incomparable_reason and dominates(against),
        against=against,
        incomparable_reason=incomparable_reason,
    )


def _float_candidate(reference: FloatReference, turns: Turns) -> Candidate:
    return Candidate(
        label="float",
        kind="float",
        scheme="fp32",
        megabytes=reference.megabytes,
        latency=percentile_figure(turns, 0, 0.5),
        drop=0.0,
    )


def _remember(
    store: Store,
    plan: Plan,
    outcomes: dict[str, Outcome],
    comparison: Comparison,
    built: Sequence[Built],
    scored: Sequence[Scored],
) -> None:
    """For later exports: the comparison of this bundle, and every bundle as a trial of the accuracy-over-size plot."""
    evaluation = outcomes["samples.evaluation"].artifact.digest
    runner = plan.target.runner
    key = comparison_key(comparison.bundle_digest, evaluation, plan.target.shape, plan.job.metric, runner)
    keep_comparison(store.root, key, comparison)
    for one, result in zip(built, scored, strict=True):
        trial = Trial(
            label=one.label,
            origin="this run",
            megabytes=bundle_bytes(one.bundle) / 1e6,
            accuracy=100 - result.drop.value,
        )
        append_trial(store.root, trial_scope(plan.source.digest, evaluation, runner), trial)
