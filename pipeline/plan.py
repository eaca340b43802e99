"""(model, target, recipe) -> the stages of an export, in order. This file is where the flow can be read.

source -> samples -> compress -> trace -> calibrate -> smooth -> quantize -> write -> bundle
                              `-> float reference ------------------------------------^
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.checks.user_metric import UserMetric, load_user_metric
from pipeline.compress import EARLIER, PASSES
from pipeline.config.job import Job
from pipeline.config.loading import load_recipe, load_target, validate
from pipeline.config.recipe import Recipe
from pipeline.config.target import Target
from pipeline.core.errors import UsageError
from pipeline.core.stage import Stage
from pipeline.core.types import Scheme
from pipeline.quantize.schemes import describe, resolve_scheme
from pipeline.source.datasets import load_calibration, load_evaluation
from pipeline.source.images import ImagePreprocessing
from pipeline.source.labels import check_labels
from pipeline.source.model import ModelSource, resolve_model

_TORCH = ("torch", "transformers", "optimum", "onnx-ir", "onnxscript", "onnxruntime")
_ONNX = ("onnx-ir", "onnxruntime", "numpy")
_TEXT = ("transformers", "numpy")
_EXAMPLE_LENGTH = 16  # tokens of the sequences to trace with; the length stays dynamic

TITLES = {
    "samples.calibration": "read calibration samples",
    "samples.evaluation": "read evaluation samples",
    "trace.float": "trace float model",
    "trace": "trace compressed model",
    "calibrate.channels": "calibrate channels",
    "calibrate.ranges": "calibrate ranges",
    "calibrate.hessians": "calibrate hessians",
    "smooth": "smooth outlier channels",
    "sensitivity": "measure sensitivity",
    "quantize": "quantize",
    "write": "write ONNX",
    "compare": "compare with float",
    "reference": "run float reference",
    "bundle": "bundle",
}


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


def make_plan(job: Job) -> Plan:
    """Resolve names, read and check all configuration and data sets. UsageError for any mistake."""
    target = apply_overrides(load_target(job.target), job)
    recipe = load_recipe(job.recipe or target.recipe)
    scheme = resolve_scheme(recipe.scheme, job.scheme, f"recipe {recipe.name}")
    source = resolve_model(job.model, job.task, job.trust_remote_code, job.allow_pickle, recipe)
    metric = load_user_metric(job.metric, job.references)
    builder = _Builder(job, source, target, recipe, scheme, metric)
    return Plan(job, source, target, recipe, scheme, tuple(builder.stages()), tuple(builder.notes), metric)


def apply_overrides(target: Target, job: Job) -> Target:
    """The target with the flags' shape, threads and limits; UsageError for a budget that it does not have."""
    data = target.model_dump()
    shape = {"batch_size": job.batch_size, "sequence_length": job.sequence_length}
    data["shape"] |= {name: value for name, value in shape.items() if value is not None}
    data["runtime"] |= {} if job.threads is None else {"threads": job.threads}
    for name, limit in job.budgets.items():
        if name not in data["budgets"]:
            raise UsageError(
                f"The target {target.name!r} has no budget {name!r}.", f"It has {', '.join(data['budgets'])}."
            )
        data["budgets"][name]["limit"] = limit
    return validate(Target, data, f"target {target.name} with the flags' changes")


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
        self.preprocessing = _preprocessing(recipe)
        self._compressed: str | None = None

    def stages(self) -> list[Stage]:
        rounded = self.scheme.weights < 32 or self.scheme.embeddings < 32
        scheme = self.scheme
        measured = scheme.smoothing is not None or scheme.min_sqnr_db is not None
        calibrated = measured or scheme.activations == "static" or scheme.rounding == "gptq" or self.recipe.passes
        return [
            *([self._calibration_samples()] if calibrated else []),
            self._evaluation_samples(),
            self._trace("trace.float", None),
            *self._compress(),
            *([self._trace("trace", self._compressed)] if self._compressed else []),
            *([*self._quantize(), self._compare(bool(calibrated))] if rounded else []),
            self._reference(),
            self._bundle("write" if rounded else self._traced),
        ]

    @property
    def _traced(self) -> str:
        return "trace" if self._compressed else "trace.float"

    def _calibration_samples(self) -> Stage:
        limit = self.job.calibration_samples or self.recipe.calibration.samples
        spec = self.job.calibration_data or self._default_data(self.recipe.calibration.data, "--calibration-data")
        if self.job.random_calibration:
            self.notes.append("Calibrated on random tensors (--random-calibration): accuracy will suffer.")
            digest = "random"
        else:
            dataset = load_calibration(spec, limit)
            digest = dataset.digest
        config = {
            "dataset": digest,
            "limit": limit,
            "random": self.job.random_calibration,
            **self._data_config(),
        }
        local = {"spec": spec, **self._local()}
        return Stage("samples.calibration", 2, "pipeline.source.prepare:calibration", config, {}, _TEXT, local)

    def _evaluation_samples(self) -> Stage:
        specs = list(self.job.eval_data) or [self._default_data(self.recipe.calibration.data, "--eval-data")]
        sets = [dataset for spec in specs for dataset in load_evaluation(spec)]
        for dataset in sets:
            check_labels(dataset, self.source.task, self.source.config)
            if self.metric is not None:
                self.metric.references_for(dataset.name, dataset.labels, len(dataset.samples))
        config = {"datasets": [[dataset.name, dataset.digest] for dataset in sets], **self._data_config()}
        local = {"specs": specs, **self._local()}
        return Stage("samples.evaluation", 2, "pipeline.source.prepare:evaluation", config, {}, _TEXT, local)

    def _default_data(self, named: str, flag: str) -> str:
        """The recipe's set if it was named there or is of the task's kind, else the task's own. UsageError if that
        cannot become inputs of the model, or there is none."""
        task = self.source.task
        if "data" in self.recipe.calibration.model_fields_set or (task.data == "text" and self._has_preprocessing()):
            return named
        if not self._has_preprocessing():
            raise UsageError(
                f"Nothing says how {task.data} samples become inputs of {self.source.name!r}, and none were given.",
                f"Give its inputs as an .npz file with {flag}, or for images a [preprocessing] table in the recipe.",
            )
        if not task.calibration:
            raise UsageError(
                f"There is no shipped data for {task.name}.",
                "Give your own with --calibration-data and --eval-data (see `edge export --help`).",
            )
        return task.calibration

    def _has_preprocessing(self) -> bool:
        if self.source.kind == "huggingface":
            return True
        if self.source.task.data == "image":
            return self.preprocessing is not None
        return self.source.task.data == "text" and (self.source.path / "tokenizer.json").is_file()

    def _data_config(self) -> dict[str, Any]:
        return {"source": self._source(), "max_length": self.target.shape.sequence_length}

    def _trace(self, name: str, compressed: str | None) -> Stage:
        config = {"source": self._source(), "opset": self.job.opset, "example_length": _EXAMPLE_LENGTH}
        inputs = {EARLIER: compressed} if compressed else {}
        if self.source.kind == "onnx":
            return Stage(name, 1, "pipeline.trace.import_onnx:run", config, inputs, _ONNX, self._local())
        return Stage(name, 2, "pipeline.trace.to_onnx:run", config, inputs, _TORCH, self._local())

    def _compress(self) -> list[Stage]:
        if self.recipe.passes and self.source.kind == "onnx":
            raise UsageError(
                f"The recipe {self.recipe.name!r} has compression passes, which need a PyTorch model; "
                f"{self.source.name!r} is an ONNX file.",
                "Use a recipe without passes, or give the PyTorch model.",
            )
        return [self._pass(number, table) for number, table in enumerate(self.recipe.passes)]

    def _pass(self, number: int, table: dict[str, Any]) -> Stage:
        where = f"pass {number + 1} of recipe {self.recipe.name}"
        if "pass" not in table:
            raise UsageError(f"{where} does not say which pass it is.", f"Add `pass = ...`: {', '.join(PASSES)}.")
        kind = PASSES.get(table["pass"])
        config = validate(kind, {key: value for key, value in table.items() if key != "pass"}, where)
        inputs = {"calibration": "samples.calibration"} | ({EARLIER: self._compressed} if self._compressed else {})
        self._compressed = f"compress.{number}.{table['pass']}"
        limits = {name: budget.limit for name, budget in self.target.budgets.items() if name in _ACCURACY}
        values = {
            "pass": config.model_dump(mode="json"),
            "source": self._source(),
            "scheme": describe(self.scheme),
            "limits": limits,
        }
        run, version = kind.run, kind.version  # type: ignore[attr-defined]
        libraries = ("torch", "transformers", "numpy", *getattr(kind, "libraries", ()))
        return Stage(self._compressed, version, run, values, inputs, libraries, self._local())

    def _quantize(self) -> list[Stage]:
        config = {"scheme": describe(self.scheme)}
        # what is watched does not depend on the rest of the scheme, so that recipes can share it
        watched = {"scheme": describe(Scheme(name="any", nodes_to_exclude=self.scheme.nodes_to_exclude))}
        graph, stages = self._traced, []
        if self.scheme.smoothing is not None:
            inputs = {"graph": graph, "samples": "samples.calibration"}
            stages.append(self._onnx("calibrate.channels", "calibrate:channels", watched, inputs, version=2))
            inputs = {"graph": graph, "channels": "calibrate.channels"}
            stages.append(self._onnx("smooth", "smooth:run", config, inputs))
            graph = "smooth"
        inputs = {"graph": graph}
        if self.scheme.activations == "static":
            observed = {"graph": graph, "samples": "samples.calibration"}
            stages.append(self._onnx("calibrate.ranges", "calibrate:ranges", config, observed, version=3))
            inputs["ranges"] = "calibrate.ranges"
        if self.scheme.rounding == "gptq":
            observed = {"graph": graph, "samples": "samples.calibration"}
            stages.append(self._onnx("calibrate.hessians", "calibrate:hessians", watched, observed, version=2))
            inputs["hessians"] = "calibrate.hessians"
        if self.scheme.min_sqnr_db is not None:
            measured = {**inputs, "samples": "samples.calibration"}
            stages.append(self._onnx("sensitivity", "sensitivity:run", config, measured))
            inputs["sensitivity"] = "sensitivity"
        stages.append(self._onnx("quantize", "quantize:run", config, inputs, version=2))
        stages.append(self._onnx("write", "write:run", {}, {"graph": graph, "plan": "quantize"}, version=2))
        return stages

    def _compare(self, calibrated: bool) -> Stage:
        """The quantized graph against the one that it was made from, not against the model before pruning."""
        data = "calibration" if calibrated else "evaluation"
        inputs = {"float": self._traced, "model": "write", "samples": f"samples.{data}"}
        config = {"family": self.source.task.family, "data": data}
        return Stage("compare", 1, "pipeline.checks.compare:run", config, inputs, ("onnxruntime", "numpy"))

    @staticmethod
    def _onnx(name: str, run: str, config: dict[str, Any], inputs: dict[str, str], version: int = 1) -> Stage:
        return Stage(name, version, f"pipeline.quantize.{run}", config, inputs, _ONNX)

    def _reference(self) -> Stage:
        inputs = {"float": "trace.float", "evaluation": "samples.evaluation"}
        config = {"family": self.source.task.family}
        return Stage("reference", 3, "pipeline.checks.reference:run", config, inputs, ("onnxruntime", "numpy"))

    def _bundle(self, model: str) -> Stage:
        config = {
            "source": self._source(),
            "scheme": describe(self.scheme),
            "runtime": self.target.runtime.model_dump(mode="json", exclude={"sources"}),
            "max_length": self.target.shape.sequence_length,
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
            "evaluation": "samples.evaluation",
            "reference": "reference",
            **({"plan": "quantize", "compare": "compare"} if model == "write" else {}),
        }
        return Stage("bundle", 1, "pipeline.bundle.build:run", config, inputs, ("onnxruntime", "numpy"), self._local())

    def _source(self) -> dict[str, Any]:
        """What of the source can change a result; the path is not among it."""
        task = self.source.task
        return {
            "name": self.source.name,
            "kind": self.source.kind,
            "digest": self.source.digest,
            "task": task.name,
            "auto_class": task.auto_class,
            "family": task.family,
            "data": task.data,
            "sentence_transformer": self.source.sentence_transformer,
            "output": task.output,
            "trust_remote_code": self.job.trust_remote_code,
            "pickle": self.source.pickle,
            "inputs": {name: spec.model_dump(mode="json") for name, spec in self.source.inputs.items()},
            "preprocessing": self.preprocessing,
        }

    def _local(self) -> dict[str, Any]:
        return {"source": {**self._source(), "path": str(self.source.path), "entry": self.source.entry}}


def _preprocessing(recipe: Recipe) -> dict[str, Any] | None:
    """The recipe's image processing, checked."""
    if recipe.preprocessing is None:
        return None
    where = f"[preprocessing] of recipe {recipe.name}"
    return validate(ImagePreprocessing, recipe.preprocessing, where).model_dump(mode="json")


_ACCURACY = ("max_accuracy_drop", "min_top10_overlap", "min_agreement")
