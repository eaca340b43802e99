"""Samples of one shape run together: for float graphs, whose answer to a sample does not depend on the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime as ort

from pipeline.source.samples import Row, Samples


def batches(session: ort.InferenceSession, samples: Samples, largest: int) -> Iterator[tuple[list[int], Row]]:
    """(positions, inputs) of up to `largest` samples whose inputs have equal shapes, stacked on the batch axis, in an
    order that depends on the samples alone.

    Samples run one at a time where an input's batch axis is fixed.
    """
    inputs = session.get_inputs()
    names = [entry.name for entry in inputs]
    size = largest if all(entry.shape and not isinstance(entry.shape[0], int) for entry in inputs) else 1
    for group in _of_one_shape(samples, names):
        for start in range(0, len(group), size):
            positions = group[start : start + size]
            rows = [samples[position] for position in positions]
            yield positions, {name: np.concatenate([row[name] for row in rows]) for name in names}


def _of_one_shape(samples: Samples, names: Sequence[str]) -> list[list[int]]:
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = defaultdict(list)
    for position in range(len(samples)):
        groups[samples.shapes(position, names)].append(position)
    return list(groups.values())
