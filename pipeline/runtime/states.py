"""Streaming models over sequences: what a model puts out as its states is what it is given in the next step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.data.samples import Row, Samples

Arrays = dict[str, NDArray[Any]]


def run_in_order(
    session: ort.InferenceSession, samples: Samples, wanted: Sequence[str]
) -> Iterator[tuple[Row, Arrays]]:
    """The inputs and the outputs `wanted` of each sample, one at a time. In a step of a sequence that is not its first
    the states are this session's own, so that its errors add up as they do on a device."""
    outputs = list(dict.fromkeys([*wanted, *samples.states.values()]))
    carried: Row = {}
    for place, row in enumerate(samples.select([entry.name for entry in session.get_inputs()])):
        fed = row if samples.begins(place) else row | carried
        found = dict(zip(outputs, session.run(outputs, fed), strict=True))
        carried = {name: found[output] for name, output in samples.states.items() if name in row}
        yield fed, {name: found[name] for name in wanted}
