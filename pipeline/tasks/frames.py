"""Decisions on the frames of a recording, such as voice activity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.fidelity import Array, decisions
from pipeline.metrics.task import label_f1
from pipeline.tasks.grids import at
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output, Rows, known_classes, least
from pipeline.tasks.task import Task, by_names
from pipeline.tasks.whole_outputs import WholeOutputs, pack


class FrameLabels(WholeOutputs):
    """Logits or chances [1, frames, labels], each label a decision of its own in every frame, as in voice activity: the
    share of float's decisions that are kept, and F1 with them, of which the larger loss decides.

    Labels are a 0 or 1 per frame, several per frame, or a class per frame, to be that of the largest logit. They cover
    the same time as the outputs, in steps of any length.
    """

    name = "frames"
    words = "the decisions on single frames"
    wants = "floats [batch, frames, labels]"
    takes: ClassVar[tuple[LabelKind, ...]] = ("tags",)
    names_classes = False
    numbers_labels = False

    def fits(self, output: Output) -> bool:
        return output.floats and output.rank in (None, 1, 2, 3) and 0 not in (output.shape or ())

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:  # noqa: ARG002
        (output,) = outputs.values()
        return pack([output.reshape(-1, output.shape[-1] if output.ndim == 3 else 1)])

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        frames, others = (np.concatenate(self._frames(rows)) for rows in (reference, other))
        expected, found = decisions(frames), decisions(others, frames)
        scores = {"agreement": float(np.mean(expected == found))}
        if expected.any():
            scores["f1_of_float"] = label_f1(found, expected)["micro_f1"] / 100.0
        return least(scores, {name: 100.0 * (1.0 - score) for name, score in scores.items()})

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        pairs = [_pair(frames, np.asarray(label)) for frames, label in zip(self._frames(rows), labels, strict=True)]
        found, wanted = (np.concatenate(part) for part in zip(*pairs, strict=True))
        scores = label_f1(found, wanted)
        return {"f1": scores["micro_f1"], "macro_f1": scores["macro_f1"], "frame_accuracy": 100 * _right(found, wanted)}

    def label_kind(self, labels: Sequence[Any] | None, pairs: bool) -> LabelKind:  # noqa: ARG002
        return "none" if labels is None or not len(labels) or isinstance(labels[0], str) else "tags"

    def constant(self, rows: Rows) -> Rows:
        """The mean of all frames everywhere."""
        mean = np.concatenate(self._frames(rows)).mean(axis=0)
        return self.join([pack([np.broadcast_to(mean, frames.shape)]) for frames in self._frames(rows)])

    def _frames(self, rows: Rows) -> list[Array]:
        return [frames for (frames,) in self.parts(rows)]


def _pair(frames: NDArray[Any], label: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Found and wanted decisions, bool [frames, labels]."""
    label = label.reshape(1) if label.ndim == 0 else label
    wanted = at(label.T, len(frames)).T
    count = frames.shape[1]
    if wanted.ndim == 2:
        if wanted.shape[1] != count:
            raise ValueError(f"there are {wanted.shape[1]} labels a frame; the model gives {count}")
        return decisions(frames), wanted > 0.5
    if count == 1:
        return decisions(frames), wanted[:, None] > 0.5
    classes = np.arange(count)
    return frames.argmax(1)[:, None] == classes, known_classes(wanted.astype(np.int64), count)[:, None] == classes


def _right(found: Rows, wanted: Rows) -> float:
    return float(np.mean((found == wanted).all(axis=1)))


FRAMES = FrameLabels()
AUDIO_FRAME_CLASSIFICATION = Task(
    "audio-frame-classification",
    "AutoModelForAudioFrameClassification",
    "audio",
    "",
    "logits",
    FRAMES.name,
    ("ForAudioFrameClassification",),
    by_names("frame_logits", takes="input_values", axes=3),
)
