"""Regression and control policies: every output value is a quantity of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.fidelity import error_in_std
from pipeline.tasks.numbers import Numbers
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output, Rows, no_judge
from pipeline.tasks.task import Task


class Quantities(Numbers):
    """All float outputs, each value a quantity: the root mean square error over the standard deviation of float's, of
    which the worst decides; 100 times its square is the drop.

    With numbers as labels, `r2` (100 times the share of their variance that is explained, of the worst quantity) counts
    too, and the larger loss decides.
    """

    name = "quantities"
    words = "quantities (a regression, the actions of a policy)"
    wants = "floats [batch, values]"
    takes: ClassVar[tuple[LabelKind, ...]] = ("numbers", "classes", "vectors", "sets", "indices")
    names_classes = False

    def judged(self, offered: Sequence[Output]) -> list[str]:
        fitting = [output.name for output in offered if self.fits(output)]
        if not fitting:
            raise no_judge(self, offered)
        return fitting

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:  # noqa: ARG002
        return np.concatenate([output.reshape(1, -1) for output in outputs.values()], axis=1)

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        errors = error_in_std(reference, other)
        scores = {"error_in_std": float(errors.max()), "mean_error_in_std": float(errors.mean())}
        return Judgement(scores, "error_in_std", 100.0 * min(scores["error_in_std"], 1.0) ** 2)

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        wanted = np.asarray(labels, np.float64).reshape(len(rows), -1)
        if wanted.shape != rows.shape:
            raise ValueError(f"there are {wanted.shape[1]} numbers a sample; the model gives {rows.shape[1]}")
        return {"r2": 100.0 * (1.0 - float(np.square(error_in_std(wanted, rows)).max()))}


QUANTITIES = Quantities()
REGRESSION = Task("regression", "", "tensor", "", "output", QUANTITIES.name, ())
