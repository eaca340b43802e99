"""The stages that turn data sets into a model's inputs, and how stages are told of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from pipeline.bundle.golden_samples import GOLDEN_SAMPLES
from pipeline.checks.user_metric import UserMetric
from pipeline.config.job import Job
from pipeline.config.recipe import Recipe
from pipeline.config.target import Target
from pipeline.core.errors import UsageError
from pipeline.core.model_spec import ModelSpec, given
from pipeline.core.stage import MODEL, Stage
from pipeline.data.audio import AudioPreprocessing, resampling
from pipeline.data.datasets import Dataset, load_evaluation, load_training, suited
from pipeline.data.image_preprocessing import PREPROCESSOR, ImagePreprocessing, own_preprocessing
from pipeline.data.inputs import Known, as_tensors, tensor_rows
from pipeline.data.labels import (
    UNNAMED,
    check_kind,
    check_labels,
    class_count,
    class_indices,
    named_classes,
    number_labels,
    reduced,
)
from pipeline.data.lazy import Lazy
from pipeline.data.readers.tables import Columns
from pipeline.data.samples import Row
from pipeline.data.sequences import load_steps, steps
from pipeline.source.lengths import check_images
from pipeline.source.model import ModelSource
from pipeline.tasks.output_kind import OutputKind
from pipeline.tasks.registry import OUTPUTS
from pipeline.trace.fill_states import STEPS

TEXT = ("transformers", "numpy")


class Reading:
    """Reads and checks the data sets of one export.

    `stages`: by role (calibration, evaluation), those that give the samples as the model takes them so far; `raw`:
    names of sets that hold tensors, which no tokenizer can cut anew; `problems`: evaluation sets with
    problems to solve; `notes`: for the report.
    """

    def __init__(
        self, job: Job, source: ModelSource, target: Target, recipe: Recipe, metric: UserMetric | None
    ) -> None:
        self.job, self.source, self.target, self.recipe, self.metric = job, source, target, recipe, metric
        self.preprocessing = _preprocessing(recipe) or _sampling(source)
        self.stages: dict[str, Stage] = {}
        self.raw: list[str] = []
        self.notes: list[str] = []
        self.named: dict[str, int] = {}
        self.problems: list[Dataset] = []
        self._sets: list[Dataset] | None = None

    def remember(self, role: str, stage: Stage) -> Stage:
        self.stages[role] = stage
        return stage

    def calibration(self) -> Stage:
        limit = self.job.calibration_samples or self.recipe.calibration.samples
        spec = self.job.calibration_data
        config: dict[str, Any] = {"random": self.job.random_calibration, **self.config()}
        streams = False
        if self.job.random_calibration:
            self.notes.append("Calibrated on random tensors (--random-calibration): accuracy will suffer.")
            self.raw.append("random tensors")
            like, states = self._like_given()
            config |= {"dataset": "random", "limit": limit, "known": like, "states": states}
            streams = bool(states)
        else:
            spec = spec or self.default_data(self.recipe.calibration.data, "--calibration-data")
            dataset = self._given(spec, limit)
            streams = bool(dataset.sequences)
            config["dataset"] = dataset.digest
            config |= {"limit": limit, "exact": self._exact} if streams else {"limit": len(dataset.samples)}
        run = "pipeline.data.encode:calibration"
        return Stage(_named("calibration", streams), 6, run, config, {}, TEXT, {"spec": spec}, self.models())

    def _like_given(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What made-up samples take from the evaluation data, and the states of steps (see `Dataset`)."""
        dataset, specs = self.evaluation_sets()[0], self.source.inputs
        arrays = self.as_tensors(dataset)
        if arrays.kind != "tensor" or not specs:
            return {}, {}
        return asdict(Known.of(next(tensor_rows(arrays, specs)), specs)), dict(dataset.states)

    @property
    def _exact(self) -> bool:
        return self.job.calibration_samples is not None

    def _given(self, spec: str, limit: int) -> Dataset:
        """The calibration set, checked."""
        dataset = load_steps(spec, limit, self._exact, self.columns(optional=True), self.source.inputs, self.as_tensors)
        self.check_kind(dataset)
        self.notes += [note for note in dataset.notes if note not in self.notes]
        if not dataset.sequences:
            self._note_fewer(dataset, limit, "calibrates with")
        if self.recipe.passes:  # what they change is judged on these samples
            self._require_enough(dataset, "--calibration-samples")
        self.raw += [dataset.name] if dataset.kind == "tensor" else []
        return dataset

    def with_states(self) -> list[Stage]:
        """The stages that give steps their states, of a streaming model; its float graph must be traced by then."""
        return [
            self.remember(role, _filled(role, stage))
            for role, stage in list(self.stages.items())
            if stage.name == f"steps.{role}"
        ]

    def training_sets(self, specs: Sequence[str], limit: int | None) -> list[Dataset]:
        """The sets to train on, checked."""
        sets = [load_training(spec, limit, self.columns(optional=True)) for spec in specs]
        for dataset in sets:
            self.check_kind(dataset)
            check_labels(self.numbered(dataset), OUTPUTS.get(self.family()), self.source.config)
            self._note_fewer(dataset, limit or 0, "trains with")
        return sets

    def _note_fewer(self, dataset: Dataset, limit: int, does: str) -> None:
        """Say so if a set has fewer samples than the recipe asks for."""
        if len(dataset.samples) < limit:
            self.notes.append(
                f"The data set {dataset.name!r} has {len(dataset.samples)} samples and is used whole: "
                f"the recipe {self.recipe.name} {does} up to {limit}."
            )

    def _note_targets(self, dataset: Dataset) -> None:
        """Say what a decoder is judged on where nothing says what it should say."""
        given = dataset.labels is not None and isinstance(dataset.labels[0], str)
        if self.source.decoder is not None and not given and dataset.kind != "tensor":
            self.notes.append(
                f"The data set {dataset.name!r} has no texts that the decoder should say (as labels): it is judged on "
                "what the float model says itself."
            )

    def evaluation(self) -> Stage:
        specs, sets = self.evaluation_specs(), self.evaluation_sets()
        self.raw += [dataset.name for dataset in sets if dataset.kind == "tensor"]
        for dataset in sets:
            self.notes += [note for note in dataset.notes if note not in self.notes]
            self.check_kind(dataset)
            self._require_enough(dataset, "--eval-data")
            check_labels(dataset, self._judge(), self._with_classes())
            self._note_targets(dataset)
            if self.metric is not None:
                self.metric.references_for(dataset.name, dataset.labels, len(dataset.samples))
        streams = any(dataset.sequences for dataset in sets)
        config = {"datasets": [[dataset.name, dataset.digest] for dataset in sets], **self.config()}
        config |= {"raw": True} if self.source.task.data in ("image", "audio") else {}
        local = {"specs": specs}
        run = "pipeline.data.encode:evaluation"
        return Stage(_named("evaluation", streams), 7, run, config, {}, TEXT, local, self.models())

    def golden(self) -> Stage | None:
        """The samples of the bundle's golden/ where they are not the first of the evaluation data. UsageError if there
        are none of the kind that was asked for."""
        if self.job.golden_from == "data":
            return None
        if self.job.golden_from == "random":
            like, states = self._like_given()
            config = {"random": True, "limit": GOLDEN_SAMPLES, "known": like, "states": states, **self.config()}
            run = "pipeline.data.encode:calibration"
            return Stage(_named("golden", bool(states)), 1, run, config, {}, TEXT, {}, self.models())
        spec = self.source.task.calibration
        if not spec or not self._has_preprocessing():
            raise UsageError(
                f"There is no shipped data for {self.source.task.name} that could become golden samples.",
                "Use --golden-from random (invented inputs) or data (the evaluation data).",
            )
        (first, *_) = (self.as_tensors(dataset) for dataset in load_evaluation(spec))
        self.check_kind(first)
        config = {"datasets": [[first.name, first.digest]], **self.config()}
        config |= {"raw": True} if self.source.task.data in ("image", "audio") else {}
        run = "pipeline.data.encode:evaluation"
        return Stage("samples.golden", 1, run, config, {}, TEXT, {"specs": [spec]}, self.models())

    def private(self) -> list[str]:
        """What of the user's own data the export puts into the bundle and beside it."""
        names = ", ".join(dataset.name for dataset in self.evaluation_sets())
        if self.job.golden_from != "data":
            what = {"shipped": "shipped data", "random": "invented inputs"}[self.job.golden_from]
            untested = "" if self.job.golden_from == "shipped" else ", so that they test no pre-processing"
            return [
                f"golden/ holds {what}{untested}, and no reference/ is written: nothing of {names} leaves with the "
                "bundle, and only a machine with this store decides on its accuracy."
            ]
        if not self.job.eval_data:
            return []
        return [
            f"golden/ in the bundle holds samples of {names}, and reference/ beside it all of them, with their labels. "
            "If they are private: --golden-from shipped or random."
        ]

    def _with_classes(self) -> dict[str, Any]:
        """The model's config.json, with the classes that an ONNX file's outputs show where nothing names them."""
        config, outputs = self.source.config, self.source.outputs
        if class_count(config) or not outputs:
            return config
        count = self._judge().declared_classes(outputs)
        return {**config, "id2label": {str(index): str(index) for index in range(count)}} if count else config

    def check_kind(self, dataset: Dataset) -> None:
        """UsageError if the samples cannot become inputs of the model. Of images, the first one is tried where all get
        its shape; else all are."""
        task, specs, arrays = self.source.task, self.source.inputs, self.as_tensors(dataset)
        check_kind(arrays, task.name, task.data, OUTPUTS.get(task.family))
        if arrays.kind == "tensor" and specs:
            _try(tensor_rows(arrays, specs), whole=True)
        elif arrays.kind == "image":
            prepare = self._image_preprocessing()
            check_images(self.source, prepare.size)
            if specs and dataset.kind == "image":
                name, spec = next(iter(given(specs).items()))
                images = Lazy(lambda at: {name: prepare(dataset.samples[at])}, range(len(dataset.samples)))
                fixed = any(isinstance(size, int) for size in spec.shape[2:])
                _try(tensor_rows(replace(dataset, samples=images), specs), whole=prepare.size is None and fixed)
        elif arrays.kind == "audio" and (note := resampling(dataset, self.source.path)):
            self.notes += [note] if note not in self.notes else []

    def as_tensors(self, dataset: Dataset) -> Dataset:
        """Images and recordings as arrays, where the model takes them as they are."""
        dataset = suited(dataset, OUTPUTS.get(self.source.task.family))
        return as_tensors(dataset, self.source.inputs, self.preprocessing, self.source.path)

    def _image_preprocessing(self) -> ImagePreprocessing:
        if self.preprocessing is not None:
            return ImagePreprocessing.from_data(self.preprocessing, "[preprocessing], which images need,")
        return own_preprocessing(self.source.name, self.source.kind, self.source.path)

    def numbered(self, dataset: Dataset) -> Dataset:
        """With class indices in place of names; labels that an embedding is not scored with may be anything."""
        if not OUTPUTS.get(self.source.task.family).numbers_labels:
            return reduced(dataset, self.source.path)
        scored = dataset.pairs or not OUTPUTS.get(self.source.task.family).pairs_apart
        return number_labels(dataset, self.named or class_indices(self.source.config), strict=scored)

    def columns(self, optional: bool = False) -> Columns:
        """The columns that the flags name."""
        return Columns(text=self.job.text_column, label=self.job.label_column, optional=optional)

    def _require_enough(self, dataset: Dataset, flag: str) -> None:
        """UsageError for fewer samples than outputs can be compared on; pairs whose sides are embedded count twice."""
        task, kind = self.source.task, OUTPUTS.get(self.family())
        least, sides = kind.smallest, 2 if dataset.pairs and kind.pairs_apart else 1
        if len(dataset.samples) * sides < least:
            raise UsageError(
                f"The data set {dataset.name!r} has {len(dataset.samples)} samples; at least {-(-least // sides)} are "
                f"needed to compare the outputs of {task.name} on.",
                f"Give more with {flag}.",
            )

    def problem_config(self) -> dict[str, Any]:
        """What decides which problems of the evaluation sets are asked."""
        return {
            "datasets": [[dataset.name, dataset.digest] for dataset in self.problems],
            "columns": self.columns().model_dump(mode="json"),
        }

    def evaluation_specs(self) -> list[str]:
        """The sets to evaluate on, as the user named them, or the default one."""
        return list(self.job.eval_data) or [self.default_data(self.recipe.calibration.data, "--eval-data")]

    def evaluation_sets(self) -> list[Dataset]:
        """Read once: their labels tell what a model puts out whose config does not."""
        if self._sets is None:
            read = [dataset for spec in self.evaluation_specs() for dataset in load_evaluation(spec, self.columns())]
            self.problems = [dataset for dataset in read if dataset.kind == "problems"]
            sets = [steps(self.as_tensors(dataset), self.source.inputs) for dataset in read]
            self.named = self._named(sets)
            self._sets = [self.numbered(dataset) for dataset in sets]
        return self._sets

    def _named(self, sets: Sequence[Dataset]) -> dict[str, int]:
        """The classes of a model that names none, by the names in label columns of the evaluation data."""
        kind = OUTPUTS.get(self.source.task.family)
        if not kind.numbers_labels or not kind.names_classes or kind.pairs_apart or kind.per_token:
            return {}
        named = named_classes(sets, self.source.config)
        if named:
            self.notes.append(
                f"Nothing but the labels names the model's {len(named)} classes: they are taken in the order of their "
                f"names ({', '.join([*named][:_SHOWN])}{', ...' if len(named) > _SHOWN else ''}). If the float model's "
                "own score is low, theirs is another order: give class indices then."
            )
        return named

    def classes(self) -> dict[str, int]:
        """Name -> index, as the model or else the evaluation data name them."""
        self.evaluation_sets()
        return self.named or class_indices(self.source.config)

    def family(self, of: ModelSource | None = None) -> str:
        """What the model (or another source) puts out, as far as it is known before its graph is."""
        source = of or self.source
        declared = OUTPUTS.get(source.task.family)
        kinds = (declared.label_kind(dataset.labels, dataset.pairs) for dataset in self.evaluation_sets())
        return declared.by_config(source.config, kinds)

    def default_data(self, named: str, flag: str) -> str:
        """The recipe's set if it was named there or is of the task's kind, else the task's own. UsageError if that
        cannot become inputs of the model, or there is none."""
        task = self.source.task
        if "data" in self.recipe.calibration.model_fields_set or (task.data == "text" and self._has_preprocessing()):
            return named
        if not self._has_preprocessing():
            raise UsageError(
                f"Nothing says how {'' if task.data == 'tensor' else f'{task.data} '}samples become inputs of "
                f"{self.source.name!r}, and none were given with {flag}.",
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
            onnx = self.source.kind == "onnx" and (self.source.path / PREPROCESSOR).is_file()
            return self.preprocessing is not None or onnx
        return self.source.task.data == "text" and (self.source.path / "tokenizer.json").is_file()

    def config(self) -> dict[str, Any]:
        return {
            "max_length": self.target.shape.sequence_length,
            "columns": self.columns(optional=True).model_dump(mode="json"),
            "classes": self.classes(),
        }

    def spec(self, of: ModelSource | None = None) -> ModelSpec:
        """The model, or another source, as stages get it."""
        source = of or self.source
        found = source.spec(self.family(source), self.preprocessing, self.head(source))
        if found.language is not None:
            language = found.language.within(self.target.shape.context_length)
            found = found.model_copy(update={"language": language})
        if self.target.npu is not None and found.data == "text":
            found = found.model_copy(update={"text_length": self.target.shape.sequence_length})
        if all(name.startswith(UNNAMED) for name in found.labels.values()):
            found = found.model_copy(update={"labels": self._names() or found.labels})
        return found

    def _names(self) -> dict[str, str]:
        """The names in the evaluation data's labels or of its sub-folders, of the classes of a model without names."""
        if self.named:
            return {str(index): name for name, index in self.named.items()}
        named = [dataset.classes for dataset in self.evaluation_sets() if dataset.classes]
        return {str(index): name for index, name in enumerate(named[0])} if len(set(named)) == 1 else {}

    def _judge(self) -> OutputKind:
        """What the model puts out, and how that is decoded."""
        return OUTPUTS.get(self.family()).bound((), self.head())

    def head(self, of: ModelSource | None = None) -> dict[str, Any]:
        """How the outputs of the model, or of another source, are decoded."""
        source = of or self.source
        kind = OUTPUTS.get(self.family(source))
        return kind.read_head(self.recipe.head, source.config, source.metadata, source.path)

    def models(self) -> dict[str, ModelSpec]:
        return {MODEL: self.spec()}

    def of_model(
        self,
        name: str,
        version: int,
        run: str,
        config: dict[str, Any],
        inputs: dict[str, str],
        libraries: Sequence[str],
    ) -> Stage:
        """A stage that is told of the model."""
        return Stage(name, version, run, config, inputs, tuple(libraries), models=self.models())


def _try(rows: Iterator[Row], whole: bool) -> None:
    """Make the first row, or all."""
    for _ in rows:
        if not whole:
            break


def _named(role: str, streams: bool) -> str:
    """Steps are samples when the float model has given them their states."""
    return f"{'steps' if streams else 'samples'}.{role}"


def _filled(role: str, steps_of: Stage) -> Stage:
    inputs = {STEPS: steps_of.name, "float": "trace.float"}
    return Stage(f"samples.{role}", 1, "pipeline.trace.fill_states:run", {}, inputs, ("onnxruntime", "numpy"))


def _preprocessing(recipe: Recipe) -> dict[str, Any] | None:
    """The recipe's processing of images or recordings, checked."""
    if recipe.preprocessing is None:
        return None
    where = f"[preprocessing] of recipe {recipe.name}"
    kind = AudioPreprocessing if "sampling_rate" in recipe.preprocessing else ImagePreprocessing
    return kind.from_data(recipe.preprocessing, where).model_dump(mode="json")


def _sampling(source: ModelSource) -> dict[str, Any] | None:
    """The rate that an ONNX file's metadata say its recordings have."""
    said = next((source.metadata[key] for key in _RATES if source.metadata.get(key, "").isdecimal()), None)
    if said is None or (source.path / PREPROCESSOR).is_file():
        return None
    return AudioPreprocessing.from_data({"sampling_rate": int(said[:9])}, f"the metadata of {source.name}").model_dump()


_SHOWN = 10
_RATES = ("sampling_rate", "sample_rate")
