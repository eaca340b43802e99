"""Classification of single tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.task import token_scores
from pipeline.tasks.classification import Classes
from pipeline.tasks.output_kind import Arrays, LabelKind, Rows, known_classes, unmasked
from pipeline.tasks.task import Task

_STRETCHES = 100


class Tokens(Classes):
    """Logits [tokens, classes], a row an unmasked token: as classes, against labels by macro F1."""

    name = "tokens"
    words = "the decisions on single tokens"
    takes: ClassVar[tuple[LabelKind, ...]] = ("tags",)
    best_by = ""
    per_token = True

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        tags = np.concatenate([np.asarray(of_sample, np.int64) for of_sample in labels])
        if len(tags) != len(rows):
            raise ValueError(f"{len(tags)} labels for {len(rows)} tokens")
        return token_scores(rows, known_classes(tags, rows.shape[1]))

    def by_config(self, config: Mapping[str, Any], labels: Iterable[LabelKind]) -> str:  # noqa: ARG002
        return self.name

    def by_width(self, columns: int) -> str:
        return self.name if columns > 1 else "token_scores"

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:
        return rows_of_tokens(outputs, inputs)

    def lists(self, labels: Sequence[Any]) -> LabelKind:  # noqa: ARG002
        return "tags"

    def decisions(self, labels: Sequence[Any] | None, rows: Rows, reference: Rows) -> None:  # noqa: ARG002
        return None  # tokens of one sample are not independent

    def samples_of(self, rows: int, labels: Sequence[Any] | None) -> NDArray[np.int64]:
        if labels is None:
            return stretches(rows)
        return np.repeat(np.arange(len(labels)), [len(tags) for tags in labels])


def rows_of_tokens(outputs: Arrays, inputs: Arrays) -> NDArray[Any]:
    """[unmasked tokens, values] of one sample's [1, tokens, values]."""
    output = next(iter(outputs.values()))
    if output.ndim <= 2:
        return output.reshape(len(output), -1)
    rows: NDArray[Any] = output[unmasked(inputs, output.shape[:2]).astype(bool)]
    return rows


def stretches(rows: int) -> NDArray[np.int64]:
    """Rows of tokens without labels do not tell their sample: a hundred stretches of rows stand for samples."""
    return np.arange(rows) * min(rows, _STRETCHES) // rows


TOKENS = Tokens()
TOKEN_CLASSIFICATION = Task(
    "token-classification",
    "AutoModelForTokenClassification",
    "text",
    "text-en",
    "logits",
    TOKENS.name,
    ("ForTokenClassification",),
)
