"""Running a graph over samples, one at a time as an app would, or in batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.core.errors import StageError
from pipeline.core.types import Progress, silent
from pipeline.runtime.batches import batches
from pipeline.source.samples import Samples

Array = NDArray[np.float32]


def judged_outputs(
    session: ort.InferenceSession, samples: Samples, progress: Progress = silent, batch: int = 1
) -> Array:
    """One row per sample, float32 [samples, dimensions]: the graph's first output. Token states [1, tokens, d] become
    their mean over unmasked tokens.

    Samples run alone unless `batch` is given: dynamic ranges span a whole batch, so that batches would change what is
    measured; a float graph gives the same up to rounding. StageError if an output is not finite.
    """
    output = session.get_outputs()[0].name
    rows: dict[int, NDArray[Any]] = {}
    for positions, inputs in batches(session, samples, batch):
        for position, row in zip(positions, _rows(session.run([output], inputs)[0], inputs), strict=True):
            if not np.isfinite(row).all():
                raise StageError(f"Sample {position + 1} gives an output that is not finite.")
            rows[position] = row
        progress(len(rows), len(samples))
    return np.stack([rows[position] for position in range(len(samples))]).astype(np.float32)


def _rows(output: NDArray[Any], inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    if output.ndim == 2:
        return output
    mask = inputs.get("attention_mask", np.ones(output.shape[:2], np.int64))[..., None]
    rows: NDArray[Any] = (output * mask).sum(1) / mask.sum(1)
    return rows
