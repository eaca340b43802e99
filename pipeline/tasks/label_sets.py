"""Independent labels: each is a decision of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from pipeline.metrics.fidelity import decisions
from pipeline.metrics.task import label_f1
from pipeline.tasks.output_kind import Judgement, LabelKind, OutputKind, Rows, kind_of_lists, known_classes, least


class LabelSets(OutputKind):
    """Independent logits [rows, labels]: yes from a sigmoid of 0.5 on."""

    name = "labels"
    words = "the decisions on independent labels"
    limits: ClassVar[dict[str, str]] = {"min_agreement": "agreement"}
    takes: ClassVar[tuple[LabelKind, ...]] = ("sets", "indices")
    losses: ClassVar[dict[str, float]] = {"outputs_mse": 1.0}
    objective = "drawn_labels"

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        scores = {"agreement": float(np.mean(decisions(reference) == decisions(other, reference)))}
        return least(scores, {"agreement": 100.0 * (1.0 - scores["agreement"])})

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        if self.label_kind(labels, False) == "sets":
            return label_f1(decisions(rows), np.asarray(labels, np.float64) > 0)
        wanted = np.zeros(rows.shape, bool)
        for row, indices in enumerate(labels):
            wanted[row, known_classes(np.asarray(indices, np.int64), rows.shape[1])] = True
        return label_f1(decisions(rows), wanted)

    def lost(self, of_float: dict[str, float], of_other: dict[str, float], fidelity: Judgement) -> tuple[str, float]:  # noqa: ARG002
        primary = max(of_other, key=lambda name: of_float[name] - of_other[name])
        return primary, of_float[primary] - of_other[primary]

    def by_width(self, columns: int) -> str:
        return self.name if columns > 1 else "scores"

    def lists(self, labels: Sequence[Any]) -> LabelKind:
        return kind_of_lists(labels, indices=True)


LABELS = LabelSets()
