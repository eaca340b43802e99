"""What a training run is given: plain data, so that rank 0 can hand it to the other processes."""

from __future__ import annotations

from pipeline.compress.distill.config import Distill
from pipeline.core.model_spec import ModelSpec
from pipeline.core.types import StrictModel


class TrainingJob(StrictModel):
    """`model`, `teacher`: sources, as stages get them; `compressed`: the folder of the pass before, if any;
    `trained_teacher`: of the pass that made the teacher, if one did; `teacher_outputs`: where they are cached, if
    they were; `samples`: the folder of training samples; `scratch`: where checkpoints outlive a crash."""

    model: ModelSpec
    teacher: ModelSpec
    compressed: str | None
    trained_teacher: str | None = None
    teacher_outputs: str | None = None
    samples: str
    scratch: str
    config: Distill
