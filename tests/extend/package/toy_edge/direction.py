"""A kind of output: directions, of which only the angle to the float model's counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pipeline.metrics.fidelity import cosine
from pipeline.tasks.output_kind import Judgement, OutputKind, Rows


class Directions(OutputKind):
    """Vectors [rows, dimensions] whose length means nothing."""

    name = "direction"
    words = "directions"
    takes = ()
    losses: ClassVar[dict[str, float]] = {"embedding_cosine": 1.0}

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        found = cosine(reference, other)
        return Judgement({"cosine": found}, "cosine", 100.0 * (1.0 - found))

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        return {}


DIRECTION = Directions()
