"""A model on a runner, used as an ONNX Runtime session is: what it answers is computed over there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import StageError, first_line
from pipeline.core.types import Json
from pipeline.data.npy import NO_HEADER, read_npy
from pipeline.devices.runner import LOAD_SECONDS, Runner
from pipeline.devices.worker import Answers, Feed, Subject, Value

_CHUNK_BYTES, _CHUNK = 64_000_000, 4096
"""Bytes, and number, of the feeds that one request takes at most; of bytes, one feed more."""
_RUN_SECONDS = 60.0
"""Of one inference, as an allowance."""

Step: TypeAlias = tuple[bool, Feed]
"""The inputs of one run, and whether it begins anew: where it does not, states are those that the run before gave."""


class RunnerSession:
    """Every call starts the worker anew on the runner (see `Runner.run`, whose errors it raises); `run_rows` has it
    answer many feeds at a time. `subject`: the model and its runtime; its `inputs` are not used."""

    def __init__(self, runner: Runner, subject: Subject) -> None:
        self._runner, self._subject = runner, subject

    def get_inputs(self) -> list[Value]:
        return [Value(**entry) for entry in self._declared["inputs"]]

    def get_outputs(self) -> list[Value]:
        return [Value(**entry) for entry in self._declared["outputs"]]

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[NDArray[Any]]:
        """The outputs of one inference, in the order of `output_names`, or all."""
        names = [entry.name for entry in self.get_outputs()] if output_names is None else list(output_names)
        feed = {name: np.asarray(array) for name, array in input_feed.items()}
        ((_, found),) = self.run_rows(names, [(True, feed)])
        return [found[name] for name in names]

    def run_rows(
        self, wanted: Sequence[str], steps: Iterable[Step], carry: Mapping[str, str] | None = None
    ) -> Iterator[tuple[Feed, Feed]]:
        """The inputs and the outputs `wanted` of each step, in their order. `carry`: input -> the output that is its
        value in the next step."""
        carry, carried = carry or {}, Feed()
        outputs = list(dict.fromkeys([*wanted, *carry.values()]))
        for chunk in _chunks(steps):
            left = chunk
            while left:
                answered = self._answers(outputs, left, carry, carried)
                for (fresh, row), found in zip(left, answered, strict=False):
                    fed = row if fresh else row | carried
                    carried = {name: found[output] for name, output in carry.items() if name in row}
                    yield fed, {name: found[name] for name in wanted}
                left = left[len(answered) :]

    def _answers(
        self, names: Sequence[str], steps: Sequence[Step], carry: Mapping[str, str], carried: Feed
    ) -> list[Feed]:
        """The outputs of the first steps, one at least. `carried`: the states before them."""
        first = steps[0][1] if steps[0][0] else steps[0][1] | carried
        feeds = [first, *(row for _, row in steps[1:])]
        fresh = [0, *(number for number, (begins, _) in enumerate(steps) if begins and number)]
        with tempfile.TemporaryDirectory(prefix="edge-answers-") as folder:
            inputs, outputs = Path(folder) / "inputs.bin", Path(folder) / "outputs.bin"
            with inputs.open("wb") as file:
                for array in (array for feed in feeds for array in feed.values()):
                    np.save(file, array, allow_pickle=False)
            request = Answers(
                subjects=(replace(self._subject, inputs=str(inputs)),),
                count=len(feeds),
                inputs=list(first),
                outputs=str(outputs),
                names=names,
                carry=carry,
                fresh=fresh,
            )
            told = self._runner.run(request, LOAD_SECONDS + _RUN_SECONDS * len(feeds))
            self.__dict__.setdefault("_declared", told)  # which spares asking for it
            done = int(told["done"])
            if not 0 < done <= len(feeds):
                raise StageError(f"The runner says that it answered {done} of {len(feeds)} inputs.")
            return _read(outputs, names, done)

    @cached_property
    def _declared(self) -> Json:
        """What the graph declares: told by the worker, asked for no answers."""
        with tempfile.TemporaryDirectory(prefix="edge-answers-") as folder:
            inputs, outputs = Path(folder) / "inputs.bin", Path(folder) / "outputs.bin"
            inputs.touch()
            subject = replace(self._subject, inputs=str(inputs))
            return self._runner.run(
                Answers(subjects=(subject,), count=0, inputs=(), outputs=str(outputs)), LOAD_SECONDS
            )


def _chunks(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """The steps in lists that are small enough for a request."""
    rest = iter(steps)
    while chunk := [*islice(rest, 1)]:
        held = _bytes(chunk[0])
        while held < _CHUNK_BYTES and len(chunk) < _CHUNK and (more := [*islice(rest, 1)]):
            chunk += more
            held += _bytes(more[0])
        yield chunk


def _bytes(step: Step) -> int:
    return sum(array.nbytes for array in step[1].values())


def _read(path: Path, names: Sequence[str], count: int) -> list[Feed]:
    """The arrays that the worker wrote: `names` of each of `count` answers. StageError if they are not there."""
    end = path.stat().st_size
    try:
        with path.open("rb") as file:
            return [{name: read_npy(file, end) for name in names} for _ in range(count)]
    except NO_HEADER as error:
        raise StageError(f"The answers of the runner cannot be read: {first_line(error)}.") from error
