"""Texts of CTC models: recognition of written lines and of speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.core.errors import UsageError
from pipeline.core.types import Json, StrictModel
from pipeline.core.untrusted import read_json_object
from pipeline.metrics.sequences import collapse, edits_db, error_rate
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output, Rows
from pipeline.tasks.task import Task, by_names
from pipeline.tasks.whole_outputs import WholeOutputs, pack

_CHARACTERS = "character"
"""The key of an ONNX file's metadata under which PaddleOCR's exports keep a line per character."""


class CtcHead(StrictModel):
    """`blank`: the class that is no character; the first or the last, whichever a sample has more often, if it is not
    given. `alphabet`: the character of every other class in order, as one text or a list of texts."""

    blank: Annotated[int, Field(ge=0)] | None = None
    alphabet: str | tuple[str, ...] | None = None


class CtcTexts(WholeOutputs):
    """Texts decoded from frames [1, frames, classes] (or [frames, 1, classes]) by their best path, judged by the edits
    between them and float's over the length of float's.

    With texts as labels, `character_accuracy` and `word_accuracy` are 100 minus the error rates; the one named by
    `best` decides.
    """

    name = "ctc"
    words = "the texts that frames of CTC say"
    wants = "floats [batch, frames, classes]"
    takes: ClassVar[tuple[LabelKind, ...]] = ("texts",)
    batch_first = False
    names_classes = False
    numbers_labels = False
    best: ClassVar[str] = "character_accuracy"
    head_model = CtcHead

    def fits(self, output: Output) -> bool:
        return output.floats and output.rank in (None, 3) and 0 not in (output.shape or ())

    def found_head(self, config: Mapping[str, Any], metadata: Mapping[str, str], folder: Path) -> dict[str, Json]:
        """Of PaddleOCR's exports, whose first class is the blank and whose last is the space, and of transformers'
        folders, whose padding token is the blank and whose vocabulary is in vocab.json."""
        if _CHARACTERS in metadata:
            return {"blank": 0, "alphabet": [*metadata[_CHARACTERS].split("\n"), " "]}
        blank = config.get("pad_token_id") if config else None
        place = folder / "vocab.json"
        if not isinstance(blank, int) or not place.is_file():
            return {}
        return {"blank": blank, "alphabet": _vocabulary(read_json_object(place), folder, blank)}

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:  # noqa: ARG002
        (output,) = outputs.values()
        frames = output[0] if len(output) == 1 else output[:, 0]
        best = frames.argmax(axis=-1)
        return pack([np.array(collapse(best, self._blank(best, frames.shape[-1])), np.int64)])

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        expected, found = self._ids(reference), self._ids(other)
        errors = error_rate(found, expected)
        same = float(np.mean([a == b for a, b in zip(expected, found, strict=True)]))
        return Judgement({"edits_of_float": errors, "same_text": same}, "edits_of_float", 100.0 * errors)

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        texts = [self.text(ids).strip() for ids in self._ids(rows)]  # lines end with spaces of any width
        wanted = [str(label).strip() for label in labels]
        if not any(wanted):
            raise ValueError("every text is empty")
        characters = 100.0 * error_rate(texts, wanted)
        words = 100.0 * error_rate([text.split() for text in texts], [text.split() for text in wanted])
        scores = {"character_accuracy": 100.0 - characters, "word_accuracy": 100.0 - words}
        return {self.best: scores[self.best], **scores, "cer": characters, "wer": words}

    def text(self, ids: Sequence[int]) -> str:
        """What the classes `ids` say."""
        alphabet, blank = self.head.get("alphabet") or (), self.head.get("blank")
        before = [number - (blank is not None and number > blank) for number in ids]
        return "".join(alphabet[place] if place < len(alphabet) else "\ufffd" for place in before)

    def refuse(self, labels: Sequence[Any]) -> None:  # noqa: ARG002
        if not self.head.get("alphabet") or self.head.get("blank") is None:
            raise UsageError(
                "The labels are texts, and nothing says which class of the model is which character.",
                'Add to the recipe a table [head] with blank = 0 and alphabet = "abc..." (the characters of all other '
                "classes in order), or leave the labels out.",
            )

    def constant(self, rows: Rows) -> Rows:
        """The text of the first sample everywhere."""
        return np.broadcast_to(rows[:1], rows.shape).astype(self.dtype)

    def noise_db(self, reference: Rows, other: Rows) -> float:
        """All characters of float's over the edits."""
        return edits_db(self._ids(other), self._ids(reference))

    def same(self, expected: Rows, found: Rows) -> bool:
        return self._ids(expected) == self._ids(found)

    def _ids(self, rows: Rows) -> list[list[int]]:
        return [ids.tolist() for (ids,) in self.parts(rows)]

    def _blank(self, best: NDArray[Any], classes: int) -> int:
        if (given := self.head.get("blank")) is not None:
            return int(given)
        return 0 if (best == 0).sum() >= (best == classes - 1).sum() else classes - 1


class SpeechTexts(CtcTexts):
    """As `ctc`, of which words decide."""

    name = "ctc_words"
    best = "word_accuracy"


def _vocabulary(ids: Mapping[str, Any], folder: Path, blank: int) -> list[str]:
    """Texts of the classes but the blank: special tokens say nothing, and the word delimiter is a space."""
    said = folder / "tokenizer_config.json"
    settings = read_json_object(said) if said.is_file() else {}
    special = {settings.get(f"{name}_token") for name in ("pad", "unk", "bos", "eos")} | {
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
    }
    delimiter = settings.get("word_delimiter_token", "|")
    by_id = {number: text for text, number in ids.items() if isinstance(number, int) and 0 <= number < 2**20}
    found = [by_id.get(number, "") for number in range(max(by_id, default=-1) + 1) if number != blank]
    return ["" if text in special else " " if text == delimiter else text for text in found]


CTC, CTC_WORDS = CtcTexts(), SpeechTexts()
TEXT_RECOGNITION = Task(
    "text-recognition", "AutoModelForTextRecognition", "image", "", "logits", CTC.name, ("ForTextRecognition",)
)
SPEECH_RECOGNITION = Task(
    "automatic-speech-recognition",
    "AutoModelForCTC",
    "audio",
    "",
    "logits",
    CTC_WORDS.name,
    ("ForCTC",),
    by_names("logits", takes="input_values", axes=3),
)
