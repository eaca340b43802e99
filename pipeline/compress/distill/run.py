"""The work of the `distill` pass: hand the training job to all processes, train, and report what it did."""

from __future__ import annotations

from pipeline.compress import PREVIOUS_PASS, TEACHER, TEACHER_OUTPUTS
from pipeline.compress.distill.config import Distill
from pipeline.compress.pass_run import PassRun
from pipeline.compress.training.distributed import TrainingJob, broadcast_job
from pipeline.compress.training.loop import train
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes `edits.json` and `weights.safetensors`."""
    work = PassRun(context)
    job = _job(work)
    broadcast_job(job)
    trained, found = train(job, context.progress)
    trained.model.cpu()
    work.save(trained.model, trained=True)
    return work.report("distill", trained.model, job.config.judge_samples, teacher=job.teacher_name, **found)


def _job(work: PassRun) -> TrainingJob:
    context = work.context
    assert context.scratch is not None  # noqa: S101  # stages always have one
    job = TrainingJob(
        model=context.model,
        teacher=context.models[TEACHER],
        compressed=_folder(context, PREVIOUS_PASS),
        trained_teacher=_folder(context, TEACHER),
        teacher_outputs=_folder(context, TEACHER_OUTPUTS),
        samples=str(context.inputs["training"].path),
        scratch=str(context.scratch),
        config=Distill.model_validate(work.config),
    )
    unchanged = job.compressed == job.trained_teacher and job.teacher.digest == job.model.digest
    if unchanged and "hard_labels" not in job.config.losses:
        raise StageError(
            "distill: the student is the teacher: nothing was compressed in between, and no other teacher is named.",
            "Put prune or low_rank before it, give teacher = ..., or train on hard_labels.",
        )
    return job


def _folder(context: StageContext, role: str) -> str | None:
    return str(context.inputs[role].path) if role in context.inputs else None
