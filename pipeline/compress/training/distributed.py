"""One export over several processes (`accelerate launch -m pipeline export ...`): rank 0 does all the work of an
export, the others wait for the training jobs that it broadcasts. Jobs travel as JSON, never as pickles."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from pipeline.compress.distill.config import Distill
from pipeline.core.errors import EdgeError
from pipeline.core.model_spec import ModelSpec
from pipeline.core.types import StrictModel

_PATIENCE = timedelta(days=7)  # others wait for as long as rank 0 takes for what comes before training


class TrainingJob(StrictModel):
    """What a training run is given: plain data, so that rank 0 can hand it to the other processes.

    `model`, `teacher`: sources, as stages get them; `compressed`: the folder of the pass before, if any;
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

    @property
    def teacher_name(self) -> str:
        """In the words of the report."""
        if self.trained_teacher:
            return "the model as an earlier pass trained it"
        return "the model before all passes" if self.teacher.digest == self.model.digest else self.teacher.name


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def broadcast_job(job: TrainingJob) -> None:
    """Rank 0: let the other processes join in `job`."""
    if world_size() > 1:
        _send(job.model_dump_json())


def shutdown() -> None:
    """Rank 0: there will be no more jobs."""
    if world_size() > 1:
        _send("null")
        dist.destroy_process_group()


def run_worker(train: Callable[[TrainingJob], object]) -> None:
    """The other ranks: join in every job until the shutdown. What fails here fails on rank 0 too, which says it."""
    while (job := json.loads(_send(None))) is not None:
        with suppress(EdgeError):
            train(TrainingJob.model_validate(job))
    dist.destroy_process_group()


def _send(text: str | None) -> str:
    """Rank 0's text, on every rank."""
    device = _state().device
    data = torch.tensor(list((text or "").encode()), dtype=torch.uint8, device=device)
    length = torch.tensor([len(data)], device=device)
    dist.broadcast(length, 0)
    if rank() != 0:
        data = torch.empty(int(length), dtype=torch.uint8, device=device)
    dist.broadcast(data, 0)
    return bytes(data.tolist()).decode()


def _state() -> PartialState:
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def gather(values: Tensor) -> Tensor:
    """[rows, ...] of all processes, in the order of their ranks, with gradients to each."""
    if world_size() == 1:
        return values
    return torch.cat(all_gather(values))  # type: ignore[no-untyped-call]
