"""The work of the `distill` pass: hand the training job to all processes, train, and report what it did."""

from __future__ import annotations

from pipeline.compress import PREVIOUS_PASS, TEACHER, TEACHER_OUTPUTS
from pipeline.compress.compressed_model import load_compressed, save_compressed
from pipeline.compress.distill.config import Distill
from pipeline.compress.passes import pass_report
from pipeline.compress.shared.fidelity_trial import make_trial, pass_facts
from pipeline.compress.training.distributed import broadcast_job
from pipeline.compress.training.job import TrainingJob
from pipeline.compress.training.loop import train
from pipeline.compress.training.setup import teacher_name
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes `edits.json` and `weights.safetensors`."""
    assert context.scratch is not None  # noqa: S101  # stages always have one
    model, teacher = context.model, context.models[TEACHER]
    job = TrainingJob(
        model=model,
        teacher=teacher,
        compressed=_folder(context, PREVIOUS_PASS),
        trained_teacher=_folder(context, TEACHER),
        teacher_outputs=_folder(context, TEACHER_OUTPUTS),
        samples=str(context.inputs["training"].path),
        scratch=str(context.scratch),
        config=Distill.model_validate(context.config["pass"]),
    )
    unchanged = job.compressed == job.trained_teacher and teacher.digest == model.digest
    if unchanged and "hard_labels" not in job.config.losses:
        raise StageError(
            "distill: the student is the teacher: nothing was compressed in between, and no other teacher is named.",
            "Put prune or low_rank before it, give teacher = ..., or train on hard_labels.",
        )
    broadcast_job(job)
    trained, facts = train(job, context.progress)
    trained.model.cpu()
    save_compressed(context.out, trained.model, trained.edits, trained=True)
    before = load_compressed(model, context.inputs).model
    trial = make_trial(context, job.config.judge_samples)
    return pass_report("distill", teacher=teacher_name(job), **pass_facts(trial, before, trained.model), **facts)


def _folder(context: StageContext, role: str) -> str | None:
    return str(context.inputs[role].path) if role in context.inputs else None
