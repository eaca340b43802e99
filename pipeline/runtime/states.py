"""Streaming models over sequences: what a model puts out as its states is what it is given in the next step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.data.samples import Row, Samples
from pipeline.devices.runner_session import RunnerSession, Step

Arrays = dict[str, NDArray[Any]]
_STATELESS: Mapping[str, str] = MappingProxyType({})


def run_in_order(
    session: ort.InferenceSession, samples: Samples, wanted: Sequence[str]
) -> Iterator[tuple[Row, Arrays]]:
    """The inputs and the outputs `wanted` of each sample, one at a time. In a step of a sequence that is not its first
    the states are this session's own, so that its errors add up as they do on a device."""
    rows = samples.select([entry.name for entry in session.get_inputs()])
    steps = ((samples.begins(place), row) for place, row in enumerate(rows))
    return run_rows(session, wanted, steps, samples.states)


def run_rows(
    session: ort.InferenceSession, wanted: Sequence[str], steps: Iterable[Step], carry: Mapping[str, str] = _STATELESS
) -> Iterator[tuple[Row, Arrays]]:
    """The inputs and the outputs `wanted` of each step, in their order: one at a time here, many on a runner. `carry`:
    input -> the output that is its value in the next step, unless that begins anew."""
    if isinstance(session, RunnerSession):
        yield from session.run_rows(wanted, steps, carry)
        return
    outputs = list(dict.fromkeys([*wanted, *carry.values()]))
    carried: Row = {}
    for fresh, row in steps:
        fed = row if fresh else row | carried
        found = dict(zip(outputs, session.run(outputs, fed), strict=True))
        carried = {name: found[output] for name, output in carry.items() if name in row}
        yield fed, {name: found[name] for name in wanted}
