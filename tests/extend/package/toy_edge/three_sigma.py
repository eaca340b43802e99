"""An observer: the range of an activation is its mean and three standard deviations to each side."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.quantize.observers import State


class ThreeSigma:
    """Mean and three standard deviations to each side."""

    def __init__(self, percentile: float) -> None:
        self._sums = np.zeros(3)  # values, their sum, the sum of their squares

    @staticmethod
    def attach(graph: ir.Graph, value: ir.Value) -> list[ir.Value]:
        """What of the graph is to be given to `add`: here the activation itself."""
        return [value]

    @staticmethod
    def nothing(values: NDArray[np.float32]) -> bool:
        """Whether the graph gave no values."""
        return not values.size

    def add(self, values: NDArray[np.float32]) -> None:
        wide = values.astype(np.float64)
        self._sums += (wide.size, wide.sum(), np.square(wide).sum())

    def range(self) -> tuple[float, float]:
        count, total, squares = self._sums
        mean = total / max(count, 1)
        reach = 3 * np.sqrt(max(squares / max(count, 1) - mean**2, 0))
        return float(mean - reach), float(mean + reach)

    def state(self) -> State:
        """What a killed calibration goes on from."""
        return {"sums": self._sums}

    def restore(self, state: State) -> None:
        self._sums = state["sums"]
