"""Dense regression, such as depth: a number or several for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.dense import depth_scores
from pipeline.metrics.fidelity import Array
from pipeline.metrics.outputs import common_answer, lost_share
from pipeline.tasks.grids import at, grid
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output, Rows
from pipeline.tasks.task import Task, by_names
from pipeline.tasks.whole_outputs import WholeOutputs, pack

_MOST = 256
"""Points of a side at which maps are compared."""


class DenseNumbers(WholeOutputs):
    """Numbers [1, height, width] or [1, channels, height, width] of pixels, judged by their error in units of what
    float's vary by; its square is the share that is lost, and 100 times that the drop.

    With depths as labels (maps in the units of the outputs; 0 is not scored), a lower `delta1` counts too, and the
    larger loss decides.
    """

    name = "dense"
    words = "the numbers of pixels"
    wants = "floats [batch, height, width] or [batch, channels, height, width]"
    takes: ClassVar[tuple[LabelKind, ...]] = ("maps",)
    dtype = np.float32
    places = True
    names_classes = False
    numbers_labels = False

    def fits(self, output: Output) -> bool:
        return output.floats and output.rank in (None, 3, 4) and 0 not in (output.shape or ())

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:  # noqa: ARG002
        (output,) = outputs.values()
        channels = output.reshape(-1, *output.shape[-2:])
        return pack([at(channels, *grid(channels.shape[-2:], _MOST))])

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        lost = lost_share(self._maps(reference), self._maps(other))
        return Judgement({"error_in_std": float(np.sqrt(lost))}, "error_in_std", 100.0 * lost)

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        pairs = list(zip(self._maps(rows), labels, strict=True))
        found = np.concatenate([pixels.ravel() for pixels, _ in pairs])
        wanted = np.concatenate(
            [
                np.broadcast_to(at(np.asarray(label), *pixels.shape[-2:]), pixels.shape).ravel()
                for pixels, label in pairs
            ]
        )
        return depth_scores(found, wanted)

    def lost(self, of_float: dict[str, float], of_other: dict[str, float], fidelity: Judgement) -> tuple[str, float]:
        drop = of_float["delta1"] - of_other["delta1"]
        return ("delta1", drop) if drop >= fidelity.drop else (fidelity.primary, fidelity.drop)

    def constant(self, rows: Rows) -> Rows:
        return self.join([pack([array]) for array in common_answer(self._maps(rows))])

    def _maps(self, rows: Rows) -> list[Array]:
        return [pixels for (pixels,) in self.parts(rows)]


DENSE = DenseNumbers()
DEPTH_ESTIMATION = Task(
    "depth-estimation",
    "AutoModelForDepthEstimation",
    "image",
    "images-procedural",
    "predicted_depth",
    DENSE.name,
    ("ForDepthEstimation",),
    by_names("predicted_depth"),
)
