"""Running a graph over samples, one at a time, as an app would."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.core.errors import StageError
from pipeline.core.types import Progress, silent
from pipeline.source.samples import Samples

Array = NDArray[np.float32]


def judged_outputs(session: ort.InferenceSession, samples: Samples, progress: Progress = silent) -> Array:
    """One row per sample, float32 [samples, dimensions]: the graph's first output. Token states [1, tokens, d] become
    their mean over unmasked tokens.

    Samples run alone: dynamic ranges span a whole batch, so a batch would change what is measured.
    StageError if an output is not finite.
    """
    inputs = [entry.name for entry in session.get_inputs()]
    output = session.get_outputs()[0].name
    rows = []
    for done, row in enumerate(samples.select(inputs), start=1):
        rows.append(_row(session.run([output], row)[0], row))
        if not np.isfinite(rows[-1]).all():
            raise StageError(f"Sample {done} gives an output that is not finite.")
        progress(done, len(samples))
    return np.stack(rows).astype(np.float32)


def _row(output: NDArray[Any], inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    if output.ndim == 2:
        return output[0]
    mask = inputs.get("attention_mask", np.ones(output.shape[:2], np.int64))[..., None]
    return (output * mask).sum(1)[0] / mask.sum()
