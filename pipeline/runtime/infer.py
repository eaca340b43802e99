"""Running a graph over samples, one at a time as an app would, or in batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.core.errors import StageError
from pipeline.core.types import Progress, silent
from pipeline.data.samples import Samples
from pipeline.runtime.batches import VALUES, batches, padded_batches
from pipeline.tasks.registry import OUTPUTS

Array = NDArray[np.float32]


def judged_outputs(
    session: ort.InferenceSession,
    samples: Samples,
    progress: Progress = silent,
    family: str = "embedding",
    batch: int = 1,
    pads: Mapping[str, int] | None = None,
    values: int = VALUES,
) -> Array:
    """The rows that are compared (see `OutputKind.rows`), float32, all samples' one after the other.

    Samples run alone unless `batch` is given: then those of one shape together, or, with `pads` (values by input name,
    see `padded_batches`), all in their order. StageError if an output is not finite.
    """
    kind = OUTPUTS.get(family)
    names = kind.judged([entry.name for entry in session.get_outputs()])
    rows: dict[int, NDArray[Any]] = {}
    grouped = (
        batches(session, samples, batch, values=values)
        if pads is None
        else padded_batches(session, samples, batch, pads)
    )
    for positions, inputs in grouped:
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
        for place, position in enumerate(positions):
            rows[position] = kind.rows(_one(outputs, place), _one(inputs, place))
            if not np.isfinite(rows[position]).all():
                raise StageError(
                    f"Sample {position + 1} gives an output that is not finite.",
                    "Compare with the float model on this sample: its inputs, or a range that 16 bits cannot hold.",
                )
        progress(len(rows), len(samples))
    return np.concatenate([rows[position] for position in range(len(samples))]).astype(np.float32)


def _one(arrays: Mapping[str, NDArray[Any]], place: int) -> dict[str, NDArray[Any]]:
    return {name: array[place : place + 1] if array.ndim else array for name, array in arrays.items()}
