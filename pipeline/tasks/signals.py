"""Enhanced audio: a signal for a signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.dense import si_snr_db
from pipeline.metrics.fidelity import Array
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output, Rows
from pipeline.tasks.task import Task
from pipeline.tasks.whole_outputs import WholeOutputs, pack


class Signals(WholeOutputs):
    """Signals [1, values] or [1, channels, values], judged by their scale-invariant ratio of signal to noise (SI-SNR)
    with float's: the share of noise, 100 times which is the drop.

    With clean signals as labels the SI-SNR with them decides, and a point is a decibel.
    """

    name = "signal"
    words = "signals"
    wants = "floats [batch, values] or [batch, channels, values]"
    takes: ClassVar[tuple[LabelKind, ...]] = ("vectors",)
    dtype = np.float32
    names_classes = False
    numbers_labels = False

    def fits(self, output: Output) -> bool:
        return output.floats and output.rank in (None, 2, 3) and 0 not in (output.shape or ())

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:  # noqa: ARG002
        (output,) = outputs.values()
        return pack([output.reshape(-1)])

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        ratios = self._ratios(other, self._signals(reference))
        noise = float(np.mean(np.minimum(10 ** (-ratios / 10), 1.0)))
        return Judgement({"si_snr_of_float_db": float(ratios.mean())}, "si_snr_of_float_db", 100.0 * noise)

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        wanted = [np.asarray(label).reshape(-1) for label in labels]
        return {"si_snr_db": float(self._ratios(rows, wanted).mean())}

    def label_kind(self, labels: Sequence[Any] | None, pairs: bool) -> LabelKind:  # noqa: ARG002
        lists = labels is not None and len(labels) > 0 and isinstance(labels[0], (list, np.ndarray))
        return "vectors" if lists else "none" if not labels else "numbers"

    def _ratios(self, rows: Rows, wanted: Sequence[Array]) -> Rows:
        pairs = list(zip(self._signals(rows), wanted, strict=True))
        for found, other in pairs:
            if found.shape != other.shape:
                raise ValueError(f"a signal has {found.size} values, its label {other.size}")
        return np.array([si_snr_db(found, other) for found, other in pairs])

    def _signals(self, rows: Rows) -> list[Array]:
        return [signal for (signal,) in self.parts(rows)]


SIGNAL = Signals()
AUDIO_ENHANCEMENT = Task("audio-enhancement", "AutoModel", "audio", "", "output", SIGNAL.name, ())
