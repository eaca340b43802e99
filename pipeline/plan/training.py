"""The stages that a training needs before it: its samples, and what its teacher says of them."""

from __future__ import annotations

from dataclasses import replace

from pipeline.compress import PREVIOUS_PASS, TEACHER, TEACHER_OUTPUTS
from pipeline.compress.passes import TRAINED, TrainingNeeds
from pipeline.core.errors import UsageError
from pipeline.core.stage import MODEL, Stage
from pipeline.plan.samples import TEXT, Reading
from pipeline.source.model import ModelSource, resolve_model

_TORCH = ("torch", "transformers", "numpy")


class Training:
    """Completes the stages of one export that train. `notes`: for the report."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.notes: list[str] = []
        self._trained: str | None = None

    def stages(self, number: int, stage: Stage, needs: TrainingNeeds) -> list[Stage]:
        """`stage` of the pass `number`, told of its samples and teacher, after the stages that it needs."""
        samples = self._samples(number, needs)
        tuned = self._tuned(number) if needs.teacher == TRAINED else None
        teacher = self.reading.source if tuned or needs.teacher is None else self._teacher(needs.teacher)
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
        specs = self.reading.job.training_data or needs.data
        if not specs:
            specs = (self.reading.default_data(self.reading.recipe.calibration.data, "--training-data"),)
            self.notes.append("distill trained on the calibration set alone; give more with --training-data.")
        digests = [dataset.digest for dataset in self.reading.training_sets(specs, needs.samples)]
        read = {"datasets": digests, "limit": needs.samples, **self.reading.config()}
        local, models = {"specs": list(specs)}, self.reading.models()
        return Stage(f"samples.training.{number}", 1, "pipeline.data.encode:training", read, {}, TEXT, local, models)

    def _tuned(self, number: int) -> str:
        """The earlier pass that trained the teacher; UsageError if none did."""
        if self._trained is None:
            raise UsageError(
                f"pass {number + 1} of recipe {self.reading.recipe.name} has teacher = {TRAINED!r}, but no distill "
                "pass comes before it.",
                "Put one before what compresses, such as losses = { hard_labels = 1.0 }, or name a model.",
            )
        return self._trained

    def _teacher(self, model: str) -> ModelSource:
        """UsageError if it does something else than the model."""
        job, recipe = self.reading.job, self.reading.recipe
        return resolve_model(model, self.reading.source.task.name, job.trust_remote_code, job.allow_pickle, recipe)

    def _outputs(self, number: int, samples: str, teacher: ModelSource, tuned: str | None) -> Stage:
        """What the teacher says of every sample: one result for all recipes with these samples and this teacher."""
        inputs = {"training": samples, **({PREVIOUS_PASS: tuned} if tuned else {})}
        run = "pipeline.compress.training.cached_teacher:run"
        return Stage(f"teacher.{number}", 1, run, {}, inputs, _TORCH, models={MODEL: self.reading.spec(teacher)})
