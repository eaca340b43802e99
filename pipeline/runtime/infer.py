"""Running a graph over samples, one at a time as an app would, or in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import tee
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.core.errors import StageError
from pipeline.core.types import Progress, silent
from pipeline.data.samples import Samples
from pipeline.runtime.batches import VALUES, batches, padded_batches
from pipeline.runtime.states import Arrays, run_in_order, run_rows
from pipeline.tasks.output_kind import Output, OutputKind
from pipeline.tasks.registry import OUTPUTS

Array = NDArray[Any]


def judged_outputs(
    session: ort.InferenceSession,
    samples: Samples,
    progress: Progress = silent,
    kind: OutputKind | None = None,
    batch: int = 1,
    pads: Mapping[str, int] | None = None,
    values: int = VALUES,
) -> Array:
    """The rows that are compared (see `OutputKind.rows`), all samples' one after the other; of embeddings, if no `kind`
    is given.

    Samples run alone unless `batch` is given: then those of one shape together, or, with `pads` (values by input name,
    see `padded_batches`), all in their order. Steps of sequences always run alone, with the session's own states (see
    `run_in_order`). StageError if an output is not finite.
    """
    kind = kind or OUTPUTS.get("embedding")
    names = list(kind.names) or kind.judged(outputs_of(session))
    rows: dict[int, NDArray[Any]] = {}
    for positions, inputs, outputs in _grouped(session, samples, names, batch, pads, values):
        for place, position in enumerate(positions):
            alone = len(positions) == 1
            rows[position] = kind.rows(*((a if alone else sample_of(a, place)) for a in (outputs, inputs)))
            if not np.isfinite(rows[position]).all():
                raise StageError(
                    f"Sample {position + 1} gives an output that is not finite.",
                    "Compare with the float model on this sample: its inputs, or a range that 16 bits cannot hold.",
                )
        progress(len(rows), len(samples))
    return kind.join([rows[position] for position in range(len(samples))])


def outputs_of(session: ort.InferenceSession) -> list[Output]:
    """The outputs as the graph declares them."""
    return [Output(entry.name, _DTYPES.get(entry.type, ""), _shape(entry.shape)) for entry in session.get_outputs()]


_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("float16", "bfloat16")},
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def _shape(sizes: Sequence[Any]) -> tuple[int | None, ...] | None:
    """None where there is no size: ONNX Runtime does not tell a number from an output of unknown rank."""
    return tuple(size if isinstance(size, int) else None for size in sizes) if sizes else None


def _grouped(
    session: ort.InferenceSession,
    samples: Samples,
    names: list[str],
    batch: int,
    pads: Mapping[str, int] | None,
    values: int,
) -> Iterator[tuple[list[int], Arrays, Arrays]]:
    """(positions, inputs, outputs) of what runs together: one step at a time of streaming models."""
    if samples.states:
        for place, (inputs, outputs) in enumerate(run_in_order(session, samples, names)):
            yield [place], inputs, outputs
        return
    grouped = (
        batches(session, samples, batch, values=values)
        if pads is None
        else padded_batches(session, samples, batch, pads)
    )
    groups, again = tee(grouped)  # a runner takes some in advance
    answered = run_rows(session, names, ((True, inputs) for _, inputs in again))
    for (positions, _), (inputs, outputs) in zip(groups, answered, strict=True):
        yield positions, inputs, outputs


def sample_of(arrays: Mapping[str, NDArray[Any]], place: int) -> dict[str, NDArray[Any]]:
    """What one sample has of a batch's arrays, as a batch of its own."""
    return {name: array[place : place + 1] if array.ndim else array for name, array in arrays.items()}
