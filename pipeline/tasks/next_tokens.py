"""Texts that an encoder's states are decoded to: translation, summaries, speech recognition by Whisper and its kin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.types import Json, StrictModel
from pipeline.metrics.fidelity import Array
from pipeline.metrics.outputs import ratio_db
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output
from pipeline.tasks.task import Task
from pipeline.tasks.whole_outputs import WholeOutputs, pack

DECODER_INPUTS = "decoder_input_ids"
"""The input with the tokens so far, as transformers names it."""


class NextTokensHead(StrictModel):
    """`pad`: the token that fills up shorter texts of a batch."""

    pad: int | None = None


class NextTokens(WholeOutputs):
    """The most likely next tokens [tokens] behind every part of a given text (teacher forcing), of logits
    [1, tokens, vocabulary]: both models are given the same text so far, so that one other choice changes no later one.

    Judged by the share of tokens that float chooses too; with texts as labels, by the share that the labels have.
    """

    name = "next_tokens"
    words = "the next tokens that a decoder chooses when it is given the text so far (teacher forcing)"
    wants = "floats [batch, tokens, vocabulary]"
    limits: ClassVar[dict[str, str]] = {"min_agreement": "agreement"}
    takes: ClassVar[tuple[LabelKind, ...]] = ("texts", "tags")
    names_classes = False
    numbers_labels = False
    unnamed_classes = False
    head_model = NextTokensHead

    def fits(self, output: Output) -> bool:
        return output.floats and output.rank in (None, 3) and 0 not in (output.shape or ())

    def found_head(self, config: Mapping[str, Any], metadata: Mapping[str, str], folder: Path) -> dict[str, Json]:  # noqa: ARG002
        return {"pad": config.get("pad_token_id")}

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:
        (logits,) = outputs.values()
        return pack([logits[0, : self._length(inputs[DECODER_INPUTS][0])].argmax(axis=-1)])

    def fidelity(self, reference: Array, other: Array) -> Judgement:
        same = [one == two for one, two in zip(self._ids(reference), self._ids(other), strict=True)]
        agreement = float(np.concatenate(same).mean())
        scores = {"agreement": agreement, "same_text": float(np.mean([part.all() for part in same]))}
        return Judgement(scores, "agreement", 100.0 * (1.0 - agreement))

    def against(self, labels: Sequence[Any], rows: Array) -> dict[str, float]:
        pairs = list(zip(self._ids(rows), labels, strict=True))
        if any(len(ids) != len(label) for ids, label in pairs):
            raise ValueError("a label has another number of tokens than the decoder was given")
        right = np.concatenate([ids == np.asarray(label, np.int64) for ids, label in pairs])
        return {"token_accuracy": 100.0 * float(right.mean())}

    def lists(self, labels: Sequence[Any]) -> LabelKind:  # noqa: ARG002
        return "tags"

    def constant(self, rows: Array) -> Array:
        """The token that is chosen most often, everywhere."""
        ids = self._ids(rows)
        values, counts = np.unique(np.concatenate(ids), return_counts=True)
        return self.join([pack([np.full(len(part), values[counts.argmax()])]) for part in ids])

    def noise_db(self, reference: Array, other: Array) -> float:
        """All tokens over those that differ."""
        same = np.concatenate([one == two for one, two in zip(self._ids(reference), self._ids(other), strict=True)])
        return ratio_db(len(same), int((~same).sum()))

    def same(self, expected: Array, found: Array) -> bool:
        return all(np.array_equal(one, two) for one, two in zip(self._ids(expected), self._ids(found), strict=True))

    def _ids(self, rows: Array) -> list[NDArray[np.int64]]:
        return [ids for (ids,) in self.parts(rows)]

    def _length(self, given: NDArray[np.int64]) -> int:
        """How many of the tokens `given` to the decoder are no padding at the end. The first may be a padding token:
        T5 starts with one."""
        places = np.flatnonzero(given != self.head.get("pad"))
        return max(1, int(places[-1]) + 1) if len(places) else 1


NEXT_TOKENS = NextTokens()
TEXT_TO_TEXT = Task(
    "text2text-generation",
    "AutoModelForSeq2SeqLM",
    "text",
    "text-en",
    "logits",
    NEXT_TOKENS.name,
    ("ForConditionalGeneration", "MTModel"),
    decodes=True,
)
SPEECH_TO_TEXT = Task(
    "speech-to-text",
    "AutoModelForSpeechSeq2Seq",
    "audio",
    "",
    "logits",
    NEXT_TOKENS.name,
    ("WhisperForConditionalGeneration", "Speech2TextForConditionalGeneration", "MoonshineForConditionalGeneration"),
    decodes=True,
    aliases=("automatic-speech-recognition",),
)
