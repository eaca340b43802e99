"""From a job to everything that a training run needs: models matched block by block, data split, losses weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipeline.compress import LOSSES, PREVIOUS_PASS
from pipeline.compress.compressed_model import Compressed, load_compressed
from pipeline.compress.distill.config import Distill
from pipeline.compress.distill.losses.types import DistillInputs, Loss, ModelOutputs
from pipeline.compress.shared.forward import Batch
from pipeline.compress.training.cached_teacher import CachedTeacher, cached_outputs
from pipeline.compress.training.data import LABELS, TrainingSet, split_validation
from pipeline.compress.training.distributed import TrainingJob, gather
from pipeline.compress.training.evaluate import Validation, frozen
from pipeline.compress.training.feature_hooks import block_names, kept_blocks, match_blocks
from pipeline.compress.training.observed_model import ModelWithHooks
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.model_spec import ModelSpec
from pipeline.data.encode import load_tokenizer
from pipeline.tasks.registry import OUTPUTS

_HELD_OUT_MOST = 512  # samples: more would cost training time and hardly steady the score


@dataclass(frozen=True)
class Setup:
    """`compressed.model` is what is trained, inside `student`."""

    config: Distill
    compressed: Compressed
    student: ModelWithHooks
    teacher: nn.Module
    data: TrainingSet
    train_indices: list[int]
    held_out: Validation
    weights: dict[str, float]
    losses: dict[str, Loss]
    heads: int

    @property
    def needs_teacher(self) -> bool:
        """Does any loss look at the teacher? Labels alone are plain fine-tuning."""
        return any(loss.needs != "labels" for loss in self.losses.values())


def prepare(job: TrainingJob, accelerator: Accelerator) -> Setup:
    """StageError if teacher and student do not fit each other, a loss does not fit the task, or no data are left."""
    config, family = job.config, job.model.family
    data = TrainingSet(Path(job.samples), cached_outputs(job.teacher_outputs))
    weights = config.losses or OUTPUTS.get(family).losses
    losses = {name: LOSSES.get(name) for name in weights}
    _check_losses(losses, family, data)
    compressed = _compressed(job.model, job.compressed)
    _check_vocabulary(job)
    student, teacher = _observed(job, compressed, {loss.needs for loss in losses.values()})
    least = max(2, OUTPUTS.get(family).smallest)
    train_indices, held = split_validation(len(data), min(config.held_out, _HELD_OUT_MOST / len(data)), least)
    setup = Setup(
        config,
        compressed,
        student,
        teacher,
        data,
        train_indices,
        Validation(data, held, job.model, accelerator.device),
        dict(weights),
        losses,
        heads=1,
    )
    return replace(setup, heads=_fit(setup))


def _observed(job: TrainingJob, student: Compressed, needs: set[str]) -> tuple[ModelWithHooks, nn.Module]:
    """The student, and the teacher or its cached outputs."""
    if job.teacher_outputs:
        return ModelWithHooks(student.model, job.model, [], attention=False), CachedTeacher()
    teacher = _compressed(job.teacher, job.trained_teacher)
    if job.config.layers == "kept" and job.teacher.digest != job.model.digest:
        raise StageError(
            f"distill: layers = 'kept' needs a teacher that the model was made from; {job.teacher.name!r} is "
            "another model.",
            "Give uniform, last, or indices.",
        )
    ours, theirs = _matched_blocks(student, teacher, job.config.layers) if "features" in needs else ([], [])
    observed = ModelWithHooks(student.model, job.model, ours, "attention" in needs)
    return observed, frozen(ModelWithHooks(teacher.model, job.teacher, theirs, "attention" in needs))


def pair_of(setup: Setup, student: ModelOutputs, teacher: ModelOutputs, batch: Batch, process: int) -> DistillInputs:
    return DistillInputs(
        student,
        teacher,
        mask=batch.get("attention_mask"),
        labels=batch.get(LABELS),
        temperature=setup.config.temperature,
        gather=gather,
        process=process,
        heads=setup.heads,
    )


def weighted_loss(setup: Setup, pair: DistillInputs) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, and each loss by name."""
    parts = {name: loss.compute(pair) for name, loss in setup.losses.items()}
    total = torch.stack([setup.weights[name] * part for name, part in parts.items()]).sum()
    return total, parts


def _compressed(spec: ModelSpec, folder: str | None) -> Compressed:
    inputs = {PREVIOUS_PASS: Artifact(Path(folder), PREVIOUS_PASS, "", "", {})} if folder else {}
    return load_compressed(spec, inputs)


def _check_losses(losses: dict[str, Loss], family: str, data: TrainingSet) -> None:
    for name, loss in losses.items():
        if not loss.takes(family):
            allowed = [other for other, known in LOSSES.usable().items() if known.takes(family)]
            raise StageError(f"distill: the loss {name!r} is not defined for this task.", f"Use {', '.join(allowed)}.")
        if loss.needs == "labels" and data.labels is None:
            raise StageError(
                f"distill: the loss {name!r} needs class labels, which {data.name!r} does not have.",
                "Give labelled --training-data, or use soft_labels.",
            )


def _check_vocabulary(job: TrainingJob) -> None:
    """Token ids must mean the same to both."""
    if job.model.data != "text" or job.teacher.digest == job.model.digest:
        return
    if _vocabulary(job.model) != _vocabulary(job.teacher):
        raise StageError(
            f"distill: the teacher {job.teacher.name!r} has another vocabulary than {job.model.name!r}.",
            "Use a teacher with the same tokenizer.",
        )


def _matched_blocks(
    student: Compressed, teacher: Compressed, layers: str | Sequence[int]
) -> tuple[list[str], list[str]]:
    theirs = block_names(teacher.model)
    if layers == "kept":
        since = student.edits[len(teacher.edits) :]  # a teacher that was trained on the way has the first ones too
        matched = kept_blocks(theirs, since)
        return [name for name, _ in matched], [theirs[place] for _, place in matched]
    ours = block_names(student.model)
    return ours, [theirs[index] for index in match_blocks(len(ours), len(theirs), layers)]


def _fit(setup: Setup) -> int:
    """Run both on two samples: compare widths, add projections, and return the relation heads of the attentions.
    StageError if outputs differ in width."""
    batch = setup.data.collate([setup.data[index] for index in setup.train_indices[:2]])
    with torch.no_grad():
        ours, theirs = setup.student(batch), setup.teacher(batch)
    if ours.outputs.shape[-1] != theirs.outputs.shape[-1]:
        raise StageError(
            f"distill: the student gives {ours.outputs.shape[-1]} outputs, the teacher {theirs.outputs.shape[-1]}.",
            "Use a teacher with the same classes or embedding size.",
        )
    images = any(value.dim() == 4 for value in ours.features)
    if images and [v.shape for v in ours.features] != [v.shape for v in theirs.features]:
        raise StageError(
            "distill: feature maps of student and teacher differ in size; projections are learned for vectors only.",
            'Use losses on outputs, layers = "kept" after pruning blocks, or indices that match maps of the same size.',
        )
    if not images:
        widths = _widths(theirs.features), _widths(ours.features)
        setup.student.project_to(*widths, seed=setup.config.seed)
    return _relation_heads(ours, theirs)


def _widths(features: Sequence[Tensor]) -> list[int]:
    return [value.shape[-1] for value in features]


def _relation_heads(ours: ModelOutputs, theirs: ModelOutputs) -> int:
    """The most heads, up to 64 features each, into which all projections divide."""
    if ours.attention is None or theirs.attention is None:
        return 1
    widths = {value.shape[-1] for value in (*ours.attention, *theirs.attention)}
    smallest = min(widths)
    return next(n for n in range(max(1, smallest // 32), 0, -1) if all(width % n == 0 for width in widths))


def _vocabulary(model: ModelSpec) -> dict[str, int]:
    return dict(load_tokenizer(model.tokenizer_folder, model.trust_remote_code).get_vocab())
