"""The training loop: one update after the other through Accelerate, judged, saved, and resumed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pipeline.compress.compressed_model import Compressed
from pipeline.compress.distill.losses.types import ModelOutputs
from pipeline.compress.edits.zeros import HeldZeros
from pipeline.compress.shared.forward import Batch
from pipeline.compress.training.checkpoint import BEST, load_best, load_state, save_best, save_state
from pipeline.compress.training.data import batch_order
from pipeline.compress.training.distributed import TrainingJob, world_size
from pipeline.compress.training.lr_schedule import learning_rate_factor
from pipeline.compress.training.observed_model import flip_shift, frozen_parameters, set_mode
from pipeline.compress.training.setup import Setup, pair_of, prepare, weighted_loss
from pipeline.core.errors import StageError
from pipeline.core.types import Json, Progress, silent

_EVALUATIONS, _POINTS = 10, 200  # by default; points of the loss curve


@dataclass
class Progressed:
    """How far a run is, as plain data."""

    step: int = 0
    loss: list[dict[str, Json]] = field(default_factory=list)
    held_out: list[dict[str, Json]] = field(default_factory=list)
    best_step: int = -1
    best_score: float = -math.inf
    without_better: int = 0


def train(job: TrainingJob, progress: Progress = silent) -> tuple[Compressed, dict[str, Json]]:
    """Train as `job` says, going on from its last checkpoint. Returns the model with its best weights, and what to
    report.

    StageError if the loss stops being finite, or model, data and config do not fit each other.
    """
    accelerator = _accelerator(job)
    torch.manual_seed(job.config.seed)
    run = _Run(job, prepare(job, accelerator), accelerator)
    run.resume()
    run.to_the_end(progress)
    return run.setup.compressed, run.said()


def _accelerator(job: TrainingJob) -> Accelerator:
    precision = "no" if job.config.precision == "float32" else job.config.precision
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=precision,
        gradient_accumulation_steps=job.config.accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )


class _Run:
    def __init__(self, job: TrainingJob, setup: Setup, accelerator: Accelerator) -> None:
        self.setup, self.accelerator, self.config = setup, accelerator, job.config
        self.scratch = Path(job.scratch)
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.state = Progressed()
        self.steps = self._steps()
        self.every = self.config.evaluate_every or max(1, self.steps // _EVALUATIONS)
        setup.teacher.to(accelerator.device)
        setup.student.to(accelerator.device)
        self.held = HeldZeros(setup.compressed.model, setup.compressed.edits)
        self._freeze_unused()
        self.optimizer = torch.optim.AdamW(_groups(setup.student, self.config.weight_decay), lr=0.0, fused=True)
        self.student, self.prepared = accelerator.prepare(setup.student, self.optimizer)

    def resume(self) -> None:
        stored = load_state(self.scratch, self.setup.student, self.optimizer)
        if stored is not None:
            self.state = Progressed(**stored)

    def to_the_end(self, progress: Progress) -> None:
        self.setup.held_out.set_reference(self.setup.teacher)
        if not self.state.held_out:
            self._judge()
        batches = iter(self._loader())
        while self.state.step < self.steps and not self._given_up():
            self._update(batches)
            progress(self.state.step, self.steps)
            if self.state.step % self.every == 0 or self.state.step == self.steps:
                self._judge()
            if self.state.step % self.config.checkpoint_every == 0:
                self._save()
        self._save()
        load_best(self.scratch, self.setup.student)
        self.setup.student.eval()

    def said(self) -> dict[str, Json]:
        return {
            "losses": self.setup.weights,
            "samples": len(self.setup.train_indices),
            "held_out_samples": len(self.setup.data) - len(self.setup.train_indices),
            "steps": self.steps,
            "processes": world_size(),
            "stopped_after": self.state.step,
            "best_step": self.state.best_step,
            "notes": self._notes(),
            "curve": self.state.loss,
            "held_out": self.state.held_out,
        }

    def _notes(self) -> list[str]:
        if self.state.best_step > 0:
            return []
        return [
            "distill: no step of training improved the held-out score, so the weights are as before; try other losses."
        ]

    def _steps(self) -> int:
        per_update = self.config.batch_size * self.config.accumulate
        if self.config.batch_size % world_size():
            raise StageError(
                f"distill: a batch of {self.config.batch_size} cannot be split over {world_size()} processes.",
                "Give a batch_size that is a multiple of them.",
            )
        return self.config.steps or max(1, int(len(self.setup.train_indices) * self.config.epochs / per_update))

    def _loader(self) -> DataLoader[Batch]:
        micro = self.steps * self.config.accumulate
        order = batch_order(self.setup.data, self.setup.train_indices, self.config.batch_size, micro, self.config.seed)
        rest = _Order(order[self.state.step * self.config.accumulate :], self.config.batch_size)
        loader: DataLoader[Any] = DataLoader(self.setup.data, batch_sampler=rest, collate_fn=self.setup.data.collate)
        return self.accelerator.prepare(loader)

    def _update(self, batches: Iterator[Batch]) -> None:
        """One optimizer step over `accumulate` batches."""
        set_mode(self.setup.student, self.config.batch_norm)
        rate = self.config.learning_rate * learning_rate_factor(self.state.step, self.steps, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for part in range(self.config.accumulate):
            with self.accelerator.accumulate(self.student):
                total, parts = self._loss(next(batches), part)
                self._require_finite(total)
                self.accelerator.backward(total)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.student.parameters(), self.config.max_grad_norm)
                self.prepared.step()
                self.prepared.zero_grad()
        self.held.restore()
        self._record(total, parts)
        self.state.step += 1

    def _loss(self, batch: Batch, part: int) -> tuple[Tensor, dict[str, Tensor]]:
        if self.config.augment == "flip_shift":
            batch = self._augmented(batch, part)
        student = self.student(batch)
        teacher = self._teach(batch) if self.setup.needs_teacher else student
        return weighted_loss(self.setup, pair_of(self.setup, student, teacher, batch, self.accelerator.process_index))

    @torch.no_grad()
    def _teach(self, batch: Batch) -> ModelOutputs:
        with self.accelerator.autocast():
            return self.setup.teacher(batch)

    def _augmented(self, batch: Batch, part: int) -> Batch:
        seed = (self.config.seed * 1_000_003 + self.state.step) * 64 + part * 8 + self.accelerator.process_index
        return {
            name: flip_shift(value, seed) if value.dim() == 4 else value  # images alone have four axes
            for name, value in batch.items()
        }

    def _require_finite(self, loss: Tensor) -> None:
        finite = self.accelerator.reduce(torch.isfinite(loss.detach()).float(), "sum")
        if float(finite) < world_size():
            raise StageError(
                f"distill: the loss is not finite at step {self.state.step + 1} of {self.steps}; training stopped.",
                'Lower learning_rate or max_grad_norm, or use precision = "float32". ' + self._kept(),
            )

    def _kept(self) -> str:
        if self.state.best_step < 0:
            return "There is no checkpoint yet."
        return f"The best weights so far, of step {self.state.best_step}, are kept: {self.scratch / BEST}."

    def _record(self, total: Tensor, parts: dict[str, Tensor]) -> None:
        """A point of the loss curve, now and then: the mean over all processes."""
        if self.state.step % max(1, self.steps // _POINTS):
            return
        values = self.accelerator.reduce(torch.stack([total.detach(), *(p.detach() for p in parts.values())]), "mean")
        names = ("loss", *parts)
        point = {name: round(float(value), 7) for name, value in zip(names, values, strict=True)}
        self.state.loss.append({"step": self.state.step, **point})

    def _judge(self) -> None:
        scores = self.setup.held_out.scores(self.setup.student)
        self.state.held_out.append(
            {"step": self.state.step, **{name: round(value, 6) for name, value in scores.items()}}
        )
        if scores["score"] > self.state.best_score:
            self.state.best_score, self.state.best_step = scores["score"], self.state.step
            self.state.without_better = 0
            if self.accelerator.is_main_process:
                save_best(self.scratch, self.setup.student)
        else:
            self.state.without_better += 1
        self.accelerator.wait_for_everyone()

    def _given_up(self) -> bool:
        return self.config.patience is not None and self.state.without_better >= self.config.patience

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_state(self.scratch, self.setup.student, self.optimizer, vars(self.state))
        self.accelerator.wait_for_everyone()

    def _freeze_unused(self) -> None:
        """And what the recipe freezes. What the loss does not depend on (BERT's pooler) must not be decayed, and would
        stall several processes."""
        batch = self.setup.data.collate([self.setup.data[index] for index in self.setup.train_indices[:2]])
        batch = {name: value.to(self.accelerator.device) for name, value in batch.items()}
        alone = pair_of(self.setup, self.setup.student(batch), self.setup.teacher(batch), batch, 0)
        weighted_loss(self.setup, alone)[0].backward()  # type: ignore[no-untyped-call]
        frozen = frozen_parameters(self.setup.compressed.model, self.config.freeze)
        for parameter in self.setup.student.parameters():
            parameter.requires_grad_(parameter.grad is not None and id(parameter) not in frozen)
        self.setup.student.zero_grad()


class _Order:
    """A batch sampler of given batches."""

    drop_last = True

    def __init__(self, batches: list[list[int]], batch_size: int) -> None:
        self.batches, self.batch_size = batches, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Biases, norms and scales are not decayed."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
