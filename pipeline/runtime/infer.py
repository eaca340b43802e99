"""Running a graph over samples, one at a time as an app would, or in batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.core.errors import StageError
from pipeline.core.model_spec import Family
from pipeline.core.types import Progress, silent
from pipeline.runtime.batches import MASK, VALUES, batches, padded_batches
from pipeline.source.samples import Samples

Array = NDArray[np.float32]
LOGITS, BOXES = "logits", "pred_boxes"


def judged_outputs(
    session: ort.InferenceSession,
    samples: Samples,
    progress: Progress = silent,
    family: Family = "embedding",
    batch: int = 1,
    pads: Mapping[str, int] | None = None,
    values: int = VALUES,
) -> Array:
    """The rows that `judge` compares (see `judged_rows`), float32, all samples' one after the other.

    Samples run alone unless `batch` is given: then those of one shape together, or, with `pads` (values by input name,
    see `padded_batches`), all in their order. StageError if an output is not finite.
    """
    names = judged_names(family, [entry.name for entry in session.get_outputs()])
    rows: dict[int, NDArray[Any]] = {}
    grouped = (
        batches(session, samples, batch, values=values)
        if pads is None
        else padded_batches(session, samples, batch, pads)
    )
    for positions, inputs in grouped:
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
        for place, position in enumerate(positions):
            rows[position] = judged_rows(family, _one(outputs, place), _one(inputs, place))
            if not np.isfinite(rows[position]).all():
                raise StageError(
                    f"Sample {position + 1} gives an output that is not finite.",
                    "Compare with the float model on this sample: its inputs, or a range that 16 bits cannot hold.",
                )
        progress(len(rows), len(samples))
    return np.concatenate([rows[position] for position in range(len(samples))]).astype(np.float32)


def _one(arrays: Mapping[str, NDArray[Any]], place: int) -> dict[str, NDArray[Any]]:
    return {name: array[place : place + 1] if array.ndim else array for name, array in arrays.items()}


def judged_names(family: Family, offered: list[str]) -> list[str]:
    """The graph outputs that are judged: the first one, or a detector's two. StageError if it lacks them."""
    if family != "detector":
        return offered[:1]
    missing = [name for name in (LOGITS, BOXES) if name not in offered]
    if missing:
        raise StageError(
            f"The detector has no output {missing[0]!r}; it has {', '.join(offered)}.",
            "Only DETR-type outputs are decoded; give a --metric of your own and another --task for others.",
        )
    return [LOGITS, BOXES]


def judged_rows(
    family: Family, outputs: Mapping[str, NDArray[Any]], inputs: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """One sample's rows: [1, dimensions] (a plain number is one); of token classes [unmasked tokens, classes]; of a
    detector [1, queries, classes + 1 + 4], logits before boxes. Other token states [1, tokens, d] become their mean
    over unmasked tokens."""
    if family == "detector":
        return np.concatenate([outputs[LOGITS], outputs[BOXES]], axis=-1)
    output = next(iter(outputs.values()))
    if output.ndim <= 2:
        return output.reshape(len(output), -1)
    mask = _mask(inputs, output.shape[:2])
    if family in ("tokens", "token_scores"):
        return output[mask.astype(bool)]
    return (output * mask[..., None]).sum(1) / mask.sum()


def _mask(inputs: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> NDArray[Any]:
    """Which of the states [batch, tokens] count: all, if there are more or fewer than the model was given tokens (some
    pool them). A decoder's mask is as long as its past and the new tokens, which are the last."""
    mask = inputs.get(MASK)
    if mask is None or mask.ndim != 2 or mask.shape[1] < shape[1]:
        return np.ones(shape, np.int64)
    given = {array.shape[1] for name, array in inputs.items() if name != MASK and array.ndim > 1}
    return mask[:, -shape[1] :] if shape[1] in (mask.shape[1], *given) else np.ones(shape, np.int64)
