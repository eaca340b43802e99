"""Numbers per sample or per token: a reranker's only logit, a regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.fidelity import error_in_std, rank_correlations
from pipeline.metrics.task import spearman_of_scores
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, OutputKind, Rows, least
from pipeline.tasks.token_classification import rows_of_tokens, stretches


class Numbers(OutputKind):
    """Numbers [rows, outputs]: how they rank, and how far they are off.

    `rank_correlation`: Spearman's with float. `error_in_std`: the root mean square error over the standard deviation of
    float's numbers; its square is the share of their variance that is lost, 100 times which is in points, as 100 times
    what the rank correlation lacks is. Of several outputs the worst counts. With labels, lost Spearman correlation
    with them counts too, and the largest loss decides: labels that float cannot follow hide no damage.
    """

    name = "scores"
    words = "numbers (one logit, or a regression)"
    smallest = 3
    takes: ClassVar[tuple[LabelKind, ...]] = ("numbers", "classes", "vectors", "sets")
    losses: ClassVar[dict[str, float]] = {"numbers_mse": 1.0}
    by_order = True

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        ranks, error = float(rank_correlations(reference, other).min()), float(error_in_std(reference, other).max())
        drops = {"rank_correlation": 100.0 * (1.0 - ranks), "error_in_std": 100.0 * min(error, 1.0) ** 2}
        return least({"rank_correlation": ranks, "error_in_std": error}, drops)

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        found = spearman_of_scores(rows, np.asarray(labels, np.float64))
        return {"spearman" if len(found) == 1 else f"spearman_{n}": value for n, value in enumerate(found)}

    def lost(self, of_float: dict[str, float], of_other: dict[str, float], fidelity: Judgement) -> tuple[str, float]:
        drops = {name: of_float[name] - of_other[name] for name in of_other} | {fidelity.primary: fidelity.drop}
        primary = max(drops, key=lambda name: drops[name])
        return primary, drops[primary]


class TokenNumbers(Numbers):
    """Numbers of single tokens; none of their labels is scored."""

    name = "token_scores"
    words = "numbers on single tokens"
    takes: ClassVar[tuple[LabelKind, ...]] = ()
    per_token = True

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:
        return rows_of_tokens(outputs, inputs)

    def samples_of(self, rows: int, labels: Sequence[Any] | None) -> NDArray[np.int64]:  # noqa: ARG002
        return stretches(rows)


SCORES = Numbers()
TOKEN_SCORES = TokenNumbers()
