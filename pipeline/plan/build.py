"""(model, target, recipe) -> the stages of an export, in order. This file is where the flow can be read.

source -> samples -> compress -> trace -> calibrate -> smooth -> quantize -> write -> bundle, and its answers
                              `-> float reference ------------------------------------^
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.bundle.client_layouts import graph_files, reads_states, require_layout
from pipeline.bundle.manifest import SOURCE_EVALUATION
from pipeline.checks.answers import answers_stage
from pipeline.checks.decides import judge_stage
from pipeline.checks.exact_match import EXACT_MATCH, check_template
from pipeline.checks.trial import Trial
from pipeline.checks.user_metric import UserMetric, load_user_metric
from pipeline.compress import PREVIOUS_PASS
from pipeline.config.job import Job
from pipeline.config.loading import load_recipe, load_target
from pipeline.config.recipe import Recipe
from pipeline.config.target import Target
from pipeline.core.budgets import BUDGETS
from pipeline.core.errors import UsageError
from pipeline.core.installed import require_export
from pipeline.core.paths import require_place
from pipeline.core.stage import Stage
from pipeline.core.types import Scheme
from pipeline.data.encode import TOKENIZER
from pipeline.data.samples import PROOF
from pipeline.devices import runner_of
from pipeline.devices.host_runner import HOST
from pipeline.devices.runner import giving
from pipeline.formats import NUMBER_FORMATS
from pipeline.plan.cache import check_cache
from pipeline.plan.npu import check_npu, context_stages, fixed_stages
from pipeline.plan.opset import choose_opset
from pipeline.plan.passes import PASS_LIBRARIES, Passes
from pipeline.plan.quantization import ONNX, TORCH, Quantization, without_cache
from pipeline.plan.samples import Reading
from pipeline.quantize.schemes import OBSERVERS, describe, resolve_scheme
from pipeline.runtime.behaviour import PROBE
from pipeline.source.lengths import check_length, check_padding, check_tokenizer, longest_text
from pipeline.source.model import ModelSource, resolve_model
from pipeline.source.model_config import stated_licence
from pipeline.source.onnx_file import check_patterns
from pipeline.source.sentence_modules import sentence_modules
from pipeline.tasks.registry import OUTPUTS


@dataclass(frozen=True)
class Plan:
    """Everything that an export will do, resolved and checked before anything runs."""

    job: Job
    source: ModelSource
    target: Target
    recipe: Recipe
    scheme: Scheme
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()
    metric: UserMetric | None = None
    length_notes: tuple[str, ...] = ()
    """Those of `notes` that say why `target` has shorter texts than its file."""


def make_plan(job: Job) -> Plan:
    """Resolve names, read and check all configuration and data sets. UsageError for any mistake."""
    require_export()
    if job.output is not None:
        require_place(job.output, f"The output {job.output}", "Name a new folder with -o/--output.")
    target, recipe, source = _resolved(job)
    runner_of(target)
    scheme = resolve_scheme(recipe.scheme, job.scheme, f"recipe {recipe.name}")
    metric = load_user_metric(job.metric, job.references)
    check_tokenizer(source)
    if source.sentence_transformer:
        sentence_modules(source.path)
    check_length(source, job.sequence_length)
    check_padding(source)
    if source.kind == "onnx":
        check_patterns(Path(source.entry), scheme.nodes_to_exclude)
    require_layout(target.bundle.layout, source)
    target, length_notes = _within(target, source)
    plan, reading = _build(job, source, target, recipe, scheme, metric, length_notes)
    _try(plan, reading)
    return plan


def _resolved(job: Job) -> tuple[Target, Recipe, ModelSource]:
    """The target as it is for the model's task, with the flags' changes; the recipe of the job, else the target's."""
    target = load_target(job.target)
    apply_overrides(target, job)  # its mistakes are told before the model is read
    recipe = load_recipe(target.recipe if job.recipe is None else job.recipe)
    source = resolve_model(job.model, job.task, job.trust_remote_code, job.allow_pickle, recipe)
    target = apply_overrides(target.for_task(source.task.name), job)
    return target, load_recipe(target.recipe) if job.recipe is None else recipe, source


def _try(plan: Plan, reading: Reading) -> None:
    """Run a few samples, where a metric is to be tried, or what the model gives is known only then (of transformers
    models their config tells)."""
    source, metric = plan.source, plan.metric
    if source.kind == "onnx":
        OUTPUTS.get(reading.family()).bound((), reading.head()).judged(source.outputs)
    trial = Trial(reading.spec(), plan.target.shape.sequence_length)
    for dataset in reading.evaluation_sets():
        if source.kind != "huggingface":
            trial.judge(dataset)
            _require_all_named(reading, trial.width)
        if metric is not None:
            trial.measure(metric, dataset)


def _require_all_named(reading: Reading, width: int | None) -> None:
    """UsageError if labels name fewer classes than the model has: which ones they are is not known then."""
    named = len(reading.named)
    if named and width is not None and named < width:
        raise UsageError(
            f"The labels name {named} classes, and the model, which names none, has {width}.",
            "Give data that has every class, class indices (0, 1, ...), or names in the model's files (id2label in a "
            "config.json).",
        )


def with_recipe(plan: Plan, recipe: Recipe) -> Plan:
    """The same model, data and target with another recipe, which the flags for the scheme do not change."""
    scheme = resolve_scheme(recipe.scheme, {}, f"recipe {recipe.name}")
    return _build(plan.job, plan.source, plan.target, recipe, scheme, plan.metric, plan.length_notes)[0]


def _within(target: Target, source: ModelSource) -> tuple[Target, tuple[str, ...]]:
    """The target with texts that the model takes, and a note if they are shorter than it asks for."""
    notes = _context_notes(target, source)
    longest, asked = longest_text(source), target.shape.sequence_length
    if longest is None or longest.tokens >= asked:
        return target, notes
    shape = target.shape.model_copy(update={"sequence_length": longest.tokens})
    note = (
        f"Texts are cut to {longest.tokens} tokens, and measured so, instead of the target's {asked}: the model takes "
        f"no more ({longest.said_by})."
    )
    return target.model_copy(update={"shape": shape}), (note, *notes)


def _context_notes(target: Target, source: ModelSource) -> tuple[str, ...]:
    """Says if a language model takes shorter texts than the target's context."""
    asked = target.shape.context_length
    if source.language is None or source.language.longest >= asked:
        return ()
    return (
        f"The context has {source.language.longest} tokens instead of the target's {asked}: the model takes no more "
        "(config.json).",
    )


def _build(
    job: Job,
    source: ModelSource,
    target: Target,
    recipe: Recipe,
    scheme: Scheme,
    metric: UserMetric | None,
    length_notes: tuple[str, ...],
) -> tuple[Plan, Reading]:
    check_npu(target, scheme)
    builder = _Builder(job, source, target, recipe, scheme, metric)
    stages = tuple(builder.stages())
    notes = (*length_notes, *builder.notes, *builder.passes.notes, *builder.reading.notes)
    return Plan(job, source, target, recipe, scheme, stages, notes, metric, length_notes), builder.reading


def apply_overrides(target: Target, job: Job) -> Target:
    """The target with the flags' shape, threads, runner and limits; UsageError for a budget that there is not."""
    data = target.model_dump()
    shape = {"batch_size": job.batch_size, "sequence_length": job.sequence_length}
    data["shape"] |= {name: value for name, value in shape.items() if value is not None}
    data["runtime"] |= {} if job.threads is None else {"threads": job.threads}
    data |= {} if job.runner is None else {"runner": job.runner}
    data["bundle"] |= {} if job.layout is None else {"layout": job.layout}
    for name, limit in job.budgets.items():
        data["budgets"].setdefault(name, _added(name))["limit"] = limit
    return Target.from_data(data, f"target {target.name} with the flags' changes")


def _added(name: str) -> dict[str, Any]:
    """A budget that the target does not have, without its limit. What depends on the device needs a figure from there;
    UsageError for a metric that nothing measures."""
    of_device = BUDGETS.get(name).unit in ("ms", "W")
    evidence = ("device", "estimated") if of_device else ("host", "emulated", "device")
    return {"required": True, "evidence": evidence, "source": "given with --budget"}


class _Builder:
    """Collects the stages of one export."""

    def __init__(
        self,
        job: Job,
        source: ModelSource,
        target: Target,
        recipe: Recipe,
        scheme: Scheme,
        metric: UserMetric | None = None,
    ) -> None:
        self.job, self.source, self.target, self.recipe, self.scheme = job, source, target, recipe, scheme
        self.metric = metric
        self.notes = ["The weights were read from a pickle (--allow-pickle)."] if source.pickle else []
        self.opset = choose_opset(job, source.kind == "onnx")
        self.notes += [*source.notes, *self.opset.notes]
        self.reading = Reading(job, source, target, recipe, metric)
        self.passes = Passes(self.reading, without_cache(scheme))
        self.quantization = Quantization(self.reading, self.passes, scheme)

    def stages(self) -> list[Stage]:
        """The installed packages that judge outputs, find ranges or round weights are in every key."""
        packages = (
            *OUTPUTS.packages(self.reading.family()),
            *OBSERVERS.packages(self.scheme.observer),
            *NUMBER_FORMATS.packages(*(name for _, name in self.scheme.overrides)),
        )
        return [replace(stage, libraries=(*stage.libraries, *packages)) for stage in self._stages()]

    def _stages(self) -> list[Stage]:
        check_cache(self.scheme, self.source, self.job.min_onnxruntime)
        calibrated = self.quantization.calibrates or self.passes.need_calibration
        contexts, notes = context_stages(self.target, self._model)
        self.notes += notes
        return [
            *([self.reading.remember("calibration", self.reading.calibration())] if calibrated else []),
            self.reading.remember("evaluation", self.reading.evaluation()),
            *self._golden(),
            self._trace("trace.float", None),
            *self.reading.with_states(),
            self._probe(),
            judge_stage(self.target, self.metric),
            *self.passes.stages(),
            *([self._trace("trace", self.passes.compressed)] if self.passes.compressed else []),
            *fixed_stages(self.target, self.source, self.passes.traced, self.reading.stages["evaluation"].name),
            *([*self.quantization.stages(bool(calibrated)), *self._written()] if self.quantization.changes else []),
            *([self._saved()] if self.job.save_model else []),
            self._reference(),
            *contexts,
            self._bundle(self._model, [stage.name for stage in contexts]),
            *self._answers(self._model),
        ]

    @property
    def _model(self) -> str:
        """The bundle's graph."""
        return "write" if self.quantization.changes else self.quantization.traced

    def _trace(self, name: str, compressed: str | None) -> Stage:
        config = {
            "opset": self.opset.version,
            "max_length": self.target.shape.sequence_length,
            **({"states": True} if reads_states(self.target.bundle.layout, self.source) else {}),
        }
        inputs = {PREVIOUS_PASS: compressed} if compressed else {}
        if self.source.language is not None and not compressed and self.quantization.stores_codes:
            config["refers"] = True  # codes are in the bundle, and the float graph is run here alone
        if self.source.kind == "onnx":
            inputs |= {PROOF: self.reading.stages["evaluation"].name}
            return self.reading.of_model(name, 10, "pipeline.trace.import_onnx:run", config, inputs, ONNX)
        libraries = (*TORCH, *self.passes.packages)  # they may have the code of edits
        return self.reading.of_model(name, 15, "pipeline.trace.to_onnx:run", config, inputs, libraries)

    def _saved(self) -> Stage:
        if not self.passes.compressed:
            raise UsageError(
                f"--save-model writes the compressed PyTorch model, but the recipe {self.recipe.name!r} has no passes.",
                "Name a recipe with [[passes]], or leave the flag out.",
            )
        inputs = {
            PREVIOUS_PASS: self.passes.compressed,
            **({TOKENIZER: self.passes.tokenizer} if self.passes.tokenizer else {}),
        }
        libraries = (*PASS_LIBRARIES, *self.passes.packages)
        return self.reading.of_model("model", 1, "pipeline.compress.save_pretrained:run", {}, inputs, libraries)

    def _written(self) -> list[Stage]:
        return [*self._texts(), *self._exact_match()]

    def _texts(self) -> list[Stage]:
        """What a language model writes by itself, of as many texts as the time allows in which others are judged."""
        if self.source.language is None:
            return []
        inputs = {"float": "trace.float", "model": "write", "samples": self.reading.stages["evaluation"].name}
        inputs |= {PREVIOUS_PASS: "trace"} if self.passes.compressed else {}
        tokens = {"tokens": self.reading.head()["tokens"]}
        libraries = ("onnxruntime", "numpy")
        return [self.reading.of_model("texts", 4, "pipeline.checks.written_texts:run", tokens, inputs, libraries)]

    def _exact_match(self) -> list[Stage]:
        """Problems that a language model solves by writing, of evaluation sets that have some."""
        if self.source.language is None or not self.reading.problems:
            return []
        for dataset in self.reading.problems:
            check_template(self.source.path, dataset.samples[0])
        inputs = {"float": "trace.float", "model": "write"}
        inputs |= {PREVIOUS_PASS: "trace"} if self.passes.compressed else {}
        config = {"tokens": self.reading.head()["tokens"], **self.reading.problem_config()}
        run, local = "pipeline.checks.exact_match:run", {"specs": self.reading.evaluation_specs()}
        libraries = ("transformers", "onnxruntime", "numpy")
        return [Stage(EXACT_MATCH, 2, run, config, inputs, libraries, local, self.reading.models())]

    def _golden(self) -> list[Stage]:
        stage = self.reading.golden()
        self.notes += self.reading.private()
        if stage is not None and self.passes.tokenizer:
            raise UsageError(
                f"--golden-from {self.job.golden_from} does not go with a recipe that trims the vocabulary.",
                "Leave one of the two out.",
            )
        return [] if stage is None else [self.reading.remember("golden", stage)]

    def _probe(self) -> Stage:
        inputs = {"float": "trace.float", "evaluation": "samples.evaluation"}
        config = {"family": self.reading.family(), "head": self.reading.head()}
        return Stage(PROBE, 6, "pipeline.checks.probe:run", config, inputs, ("onnxruntime", "numpy"))

    def _reference(self) -> Stage:
        inputs = {"float": "trace.float", "evaluation": "samples.evaluation", PROBE: PROBE}
        return Stage("reference", 6, "pipeline.checks.reference:run", {}, inputs, ("onnxruntime", "numpy"))

    def _answers(self, model: str) -> list[Stage]:
        """Of this machine. What another runner answers is measured every time: the store cannot know what it is."""
        if giving(runner_of(self.target), "answers") is not HOST:
            return []
        return [answers_stage(model, self.reading.stages["evaluation"].name, self.target.runtime)]

    def _bundle(self, model: str, contexts: Sequence[str]) -> Stage:
        config = {
            "scheme": describe(self.scheme),
            "runtime": self.target.runtime.model_dump(mode="json", exclude={"sources"}),
            "max_length": self.target.shape.sequence_length,
            "layout": self.target.bundle.layout,
            "ort": self.job.format == "ort",
            "files": graph_files(self.target.bundle.layout, self.scheme, self.target.device.isa),
            "min_onnxruntime": self.job.min_onnxruntime,
            "licence": stated_licence(self.source.path) if self.source.kind == "huggingface" else None,
            "provenance": {
                "model": self.source.name,
                "model_digest": self.source.digest,
                "target": self.target.name,
                "recipe": self.recipe.name,
            },
        }
        inputs = {
            "model": model,
            "float": "trace.float",
            "evaluation": self.reading.stages["evaluation"].name,
            PROBE: PROBE,
            "reference": "reference",
            **{name: name for name in contexts},
            **({"golden": self.reading.stages["golden"].name} if "golden" in self.reading.stages else {}),
            **(
                {TOKENIZER: self.passes.tokenizer, SOURCE_EVALUATION: "samples.evaluation"}
                if self.passes.tokenizer
                else {}
            ),
            **({"plan": "quantize"} if self.quantization.stores_codes else {}),
            **({"compare": "compare"} if model == "write" else {}),
            **({"outside": "outside"} if model == "write" and self.quantization.outside() else {}),
            **({stage.name: stage.name for stage in self._written()} if model == "write" else {}),
            **({PREVIOUS_PASS: "trace"} if self.passes.compressed else {}),
        }
        return self.reading.of_model(
            "bundle", 22, "pipeline.bundle.build:run", config, inputs, ("onnxruntime", "numpy")
        )
