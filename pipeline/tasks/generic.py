"""Any outputs: every one of them counts, by how near it is to the float model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.metrics.fidelity import same_answers
from pipeline.metrics.outputs import common_answer, equal_share, lost_share, sqnr_of_arrays
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output, Rows, least
from pipeline.tasks.task import Task
from pipeline.tasks.whole_outputs import WholeOutputs, pack

MOST_VALUES = 2**14
"""Of a sample's output. Of larger ones as many are compared, evenly spread over it."""
_SAME = 0.999


class AnyOutputs(WholeOutputs):
    """All outputs as they are, of any number, rank and dtype: the one that lost most decides.

    Of floats, `sqnr_db` is the usual ratio, and `error_in_std` the root of `metrics.outputs.lost_share`, which times
    100 is the drop: a point is noise 20 dB below what tells samples apart. Of integers and booleans `agreement` is the
    share of equal values, and all else is lost. Of several outputs, names follow a dot.
    """

    name = "generic"
    words = "all outputs as they are (error of floats, equality of integers)"
    wants = "outputs of any type and shape that hold values"
    takes: ClassVar[tuple[LabelKind, ...]] = ()
    batch_first = False
    names_classes = False
    numbers_labels = False

    def fits(self, output: Output) -> bool:
        return 0 not in (output.shape or ())

    def judged(self, offered: Sequence[Output]) -> list[str]:
        fitting = [output.name for output in offered if self.fits(output)]
        if fitting:
            return fitting
        raise UsageError(
            f"No output has a value: the model has {', '.join(map(str, offered))}.",
            "Look at the evaluation samples: may they be empty, or without what the model looks for?",
        )

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:  # noqa: ARG002
        return pack([_spread(array) for array in outputs.values()])

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        scores: dict[str, float] = {}
        drops: dict[str, float] = {}
        pairs = list(zip(self.by_part(reference), self.by_part(other), strict=True))
        for place, (expected, found) in enumerate(pairs):
            end = f".{self._name(place)}" if len(pairs) > 1 else ""
            if expected[0].dtype.kind == "f":
                lost = lost_share(expected, found)
                scores |= {f"sqnr_db{end}": sqnr_of_arrays(expected, found), f"error_in_std{end}": float(np.sqrt(lost))}
                drops[f"error_in_std{end}"] = 100.0 * lost
            else:
                scores[f"agreement{end}"] = equal_share(expected, found)
                drops[f"agreement{end}"] = 100.0 * (1.0 - scores[f"agreement{end}"])
        return least(scores, drops)

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:  # noqa: ARG002
        return {}

    def constant(self, rows: Rows) -> Rows:
        parts = [common_answer(arrays) for arrays in self.by_part(rows)]
        return self.join([pack(arrays) for arrays in zip(*parts, strict=True)])

    def noise_db(self, reference: Rows, other: Rows) -> float:
        pairs = zip(self.by_part(reference), self.by_part(other), strict=True)
        return min(sqnr_of_arrays(expected, found) for expected, found in pairs)

    def same(self, expected: Rows, found: Rows) -> bool:
        """Integers may come of a comparison that hardly decides: one of a thousand may differ."""
        pairs = list(zip(self.by_part(expected), self.by_part(found), strict=True))
        alike = all([array.shape for array in a] == [array.shape for array in b] for a, b in pairs)
        return alike and all(
            same_answers(_flat(a), _flat(b)) if a[0].dtype.kind == "f" else equal_share(a, b) >= _SAME for a, b in pairs
        )

    def _name(self, place: int) -> str:
        return self.names[place] if self.names else str(place)


def _flat(arrays: Sequence[NDArray[Any]]) -> Rows:
    return np.concatenate([array.reshape(-1, 1) for array in arrays])


def _spread(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or `MOST_VALUES` of its values in order."""
    if array.size <= MOST_VALUES:
        return array
    return array.reshape(-1)[np.arange(MOST_VALUES) * array.size // MOST_VALUES]


ANY = AnyOutputs()
GENERIC = Task("generic", "", "tensor", "", "output", ANY.name, ())
