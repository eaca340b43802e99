"""The stages that a training needs before it: its samples, and what its teacher says of them."""

from __future__ import annotations

from dataclasses import replace

from pipeline.compress import PREVIOUS_PASS, TEACHER, TEACHER_OUTPUTS
from pipeline.compress.passes import TRAINED, TrainingNeeds
from pipeline.config.job import Job
from pipeline.config.recipe import Recipe
from pipeline.core.errors import UsageError
from pipeline.core.stage import MODEL, Stage
from pipeline.data.datasets import load_training
from pipeline.data.labels import check_labels
from pipeline.plan.samples import TEXT, Reading
from pipeline.source.model import ModelSource, resolve_model

_TORCH = ("torch", "transformers", "numpy")


class Training:
    """Completes the stages of one export that train. `notes`: for the report."""

    def __init__(self, job: Job, source: ModelSource, recipe: Recipe, reading: Reading) -> None:
        self.job, self.source, self.recipe, self.reading = job, source, recipe, reading
        self.notes: list[str] = []
        self._trained: str | None = None

    def stages(self, number: int, stage: Stage, needs: TrainingNeeds) -> list[Stage]:
        """`stage` of the pass `number`, told of its samples and teacher, after the stages that it needs."""
        samples = self._samples(number, needs)
        tuned = self._tuned(number) if needs.teacher == TRAINED else None
        teacher = self.source if tuned or needs.teacher is None else self._teacher(needs.teacher)
        models = {**stage.models, TEACHER: self.reading.spec(teacher)}
        inputs = {**stage.inputs, "training": samples.name}
        before = [samples]
        if tuned:
            inputs[TEACHER] = tuned
        if needs.teacher_outputs:
            before.append(self._outputs(number, samples.name, teacher, tuned))
            inputs[TEACHER_OUTPUTS] = before[-1].name
        self._trained = stage.name
        return [*before, replace(stage, inputs=inputs, models=models)]

    def _samples(self, number: int, needs: TrainingNeeds) -> Stage:
        specs = self.job.training_data or needs.data
        if not specs:
            specs = (self.reading.default_data(self.recipe.calibration.data, "--training-data"),)
            self.notes.append("distill trained on the calibration set alone; give more with --training-data.")
        sets = [load_training(spec, needs.samples, self.reading.columns(optional=True)) for spec in specs]
        for dataset in sets:
            self.reading.check_kind(dataset)
            check_labels(self.reading.numbered(dataset), self.reading.family(), self.source.config)
            self.reading.note_fewer(dataset, needs.samples or 0, "trains with")
        digests = [dataset.digest for dataset in sets]
        read = {"datasets": digests, "limit": needs.samples, **self.reading.config()}
        local, models = {"specs": list(specs)}, self.reading.models()
        return Stage(f"samples.training.{number}", 1, "pipeline.data.encode:training", read, {}, TEXT, local, models)

    def _tuned(self, number: int) -> str:
        """The earlier pass that trained the teacher; UsageError if none did."""
        if self._trained is None:
            raise UsageError(
                f"pass {number + 1} of recipe {self.recipe.name} has teacher = {TRAINED!r}, but no distill pass comes "
                "before it.",
                "Put one before what compresses, such as losses = { hard_labels = 1.0 }, or name a model.",
            )
        return self._trained

    def _teacher(self, model: str) -> ModelSource:
        """UsageError if it does something else than the model."""
        return resolve_model(
            model, self.source.task.name, self.job.trust_remote_code, self.job.allow_pickle, self.recipe
        )

    def _outputs(self, number: int, samples: str, teacher: ModelSource, tuned: str | None) -> Stage:
        """What the teacher says of every sample: one result for all recipes with these samples and this teacher."""
        inputs = {"training": samples, **({PREVIOUS_PASS: tuned} if tuned else {})}
        run = "pipeline.compress.training.cached_teacher:run"
        return Stage(f"teacher.{number}", 1, run, {}, inputs, _TORCH, models={MODEL: self.reading.spec(teacher)})
