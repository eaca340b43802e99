"""A teacher's outputs on all training samples, cached: what looks at nothing else then trains without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.compress.compressed_model import load_compressed
from pipeline.compress.distill.losses.types import ModelOutputs
from pipeline.compress.shared.forward import Batch
from pipeline.compress.training.data import CACHED, TrainingSet
from pipeline.compress.training.evaluate import frozen
from pipeline.compress.training.observed_model import ModelWithHooks
from pipeline.core.stage import StageContext, StageMetadata

FILE = "outputs.npy"
_BATCH = 64


class CachedTeacher(nn.Module):
    """Stands where the teacher would: gives its cached outputs for the batch."""

    def forward(self, batch: Batch) -> ModelOutputs:
        return ModelOutputs(batch[CACHED])


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes `outputs.npy`, float32 [samples, width]: the teacher's outputs in float32 arithmetic."""
    spec = context.model
    teacher = frozen(ModelWithHooks(load_compressed(spec, context.inputs).model, spec, [], attention=False))
    data = TrainingSet(context.inputs["training"].path)
    order = sorted(range(len(data)), key=data.size)  # samples of alike length together: less padding
    rows = None
    for start in range(0, len(order), _BATCH):
        indices = order[start : start + _BATCH]
        outputs = _outputs(teacher, data, indices)
        if rows is None:
            shape = (len(data), *outputs.shape[1:])
            rows = np.lib.format.open_memmap(context.out / FILE, "w+", np.float32, shape)
        rows[indices] = outputs
        context.progress(start + len(indices), len(order))
    assert rows is not None  # noqa: S101  # data sets are never empty
    rows.flush()
    return {"samples": len(data), "width": int(rows.shape[-1])}


def _outputs(
    teacher: nn.Module, data: TrainingSet, indices: list[int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    with torch.inference_mode():
        view = teacher(data.collate([data[index] for index in indices]))
    result: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = view.outputs.numpy()
    return result


def cached_outputs(folder: str | None) -> Path | None:
    """The file that `run` wrote into `folder`."""
    return Path(folder) / FILE if folder else None
