"""Question answering: the span of a text that answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.answers import answer_scores
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output, OutputKind, Rows, no_judge, unmasked
from pipeline.tasks.task import Task, by_names

START, END, TYPES = "start_logits", "end_logits", "token_type_ids"
_LONGEST = 30
"""Tokens of an answer, as in transformers' examples."""


class Spans(OutputKind):
    """The best span of tokens, by the logits of its first and its last one [1, tokens] each: F1 of its tokens with
    float's, and the share that is the same. Where token types tell the context (1) from the question, spans are of the
    context, or the first token alone, which says that there is no answer (Devlin et al., arXiv 1810.04805, sec. 4.3).

    Labels are the texts of all right answers, with the context and each token's places in it (see
    `data.question_rows`), or the first and the last token of the answer.
    """

    name = "span"
    words = "the spans of tokens that answer"
    wants = f"the outputs {START!r} and {END!r}, floats [batch, tokens]"
    takes: ClassVar[tuple[LabelKind, ...]] = ("texts", "vectors")
    losses: ClassVar[dict[str, float]] = {"outputs_mse": 1.0}
    names_classes = False
    numbers_labels = False
    whole = True
    spans = True

    def fits(self, output: Output) -> bool:
        return output.floats and output.rank in (None, 2)

    def judged(self, offered: Sequence[Output]) -> list[str]:
        if {START, END} <= {output.name for output in offered if self.fits(output)}:
            return [START, END]
        raise no_judge(self, offered)

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:
        """[1, 2]: the first and the last token."""
        first, last = outputs[START][0], outputs[END][0]
        real = unmasked(inputs, (1, len(first)))[0] != 0
        inside = real & _context(inputs, real)
        total = np.where(inside, first, -np.inf)[:, None] + np.where(inside, last, -np.inf)
        places = np.arange(len(first))
        length = places - places[:, None]
        total = np.where((length >= 0) & (length < _LONGEST), total, -np.inf)
        total[0, 0] = first[0] + last[0]
        return np.array([np.unravel_index(total.argmax(), total.shape)], np.float32)

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        f1, exact = _overlap(other, reference)
        return Judgement({"span_f1_of_float": f1, "same_span": exact}, "span_f1_of_float", 100.0 * (1.0 - f1))

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        if isinstance(labels[0], Mapping):
            found = [_text(label, *map(int, span)) for label, span in zip(labels, rows, strict=True)]
            f1, exact = answer_scores(found, [label["answers"] for label in labels])
        else:
            f1, exact = _overlap(rows, np.asarray(labels, np.float64))
        return {"span_f1": 100.0 * f1, "exact": 100.0 * exact}

    def lists(self, labels: Sequence[Any]) -> LabelKind:
        return "vectors" if all(len(label) == 2 for label in labels) else "tags"

    def constant(self, rows: Rows) -> Rows:
        spans, counts = np.unique(rows, axis=0, return_counts=True)
        return np.broadcast_to(spans[counts.argmax()], rows.shape).astype(self.dtype)


def _context(inputs: Arrays, real: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which tokens are of the context: all, where token types do not tell."""
    types = inputs.get(TYPES)
    told = types is not None and types.shape == (1, len(real)) and bool((types[0] == 1).any())
    return types[0] == 1 if told and types is not None else real


def _text(label: Mapping[str, Any], first: int, last: int) -> str:
    """What a span of tokens says: nothing, where it leaves the context."""
    (begin, _), (_, end) = label["places"][first], label["places"][last]
    return str(label["context"][begin:end])


def _overlap(found: Rows, wanted: Rows) -> tuple[float, float]:
    """Means over samples [samples, 2] of the F1 of tokens (Rajpurkar et al., arXiv 1606.05250, sec. 6.1) and of whether
    spans are the same."""
    common = np.minimum(found[:, 1], wanted[:, 1]) - np.maximum(found[:, 0], wanted[:, 0]) + 1
    both = (found[:, 1] - found[:, 0] + 1) + (wanted[:, 1] - wanted[:, 0] + 1)
    return float(np.mean(2 * np.clip(common, 0, None) / both)), float(np.mean((found == wanted).all(axis=1)))


SPAN = Spans()
QUESTION_ANSWERING = Task(
    "question-answering",
    "AutoModelForQuestionAnswering",
    "text",
    "text-en",
    START,
    SPAN.name,
    ("ForQuestionAnswering",),
    by_names(START, END),
)
