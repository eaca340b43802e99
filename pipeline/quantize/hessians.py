"""What GPTQ must know of a product's inputs: sum x x^T over calibration samples, gathered as they stream by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.numerics.affine import Float
from pipeline.numerics.gptq import Curvature, Double, curvature
from pipeline.quantize.shards import read_shards

HESSIANS = "hessians.safetensors"
_ROWS = 512


class HessianObserver:
    """Observer: the sum of x x^T over the rows of an activation [..., channels]. A few hundred rows are gathered for
    each product, whose float32 result is added up in float64."""

    def __init__(self, percentile: float) -> None:  # noqa: ARG002  # all observers are made alike
        self._rows: list[Float] = []
        self._sum: Any = 0.0

    @staticmethod
    def attach(graph: ir.Graph, value: ir.Value) -> list[ir.Value]:  # noqa: ARG004  # all observers are called alike
        return [value]

    @staticmethod
    def nothing(values: NDArray[Any]) -> bool:  # noqa: ARG004  # no rows add nothing, but say how many channels
        return False

    def add(self, values: NDArray[Any]) -> None:
        self._rows.append(values.reshape(-1, values.shape[-1]))
        if sum(len(rows) for rows in self._rows) >= _ROWS:
            self._flush()

    def hessian(self) -> Float:
        """float32 [channels, channels]."""
        self._flush()
        total: Float = self._sum.astype(np.float32)
        return total

    def state(self) -> dict[str, NDArray[Any]]:
        self._flush()
        return {"sum": np.asarray(self._sum)}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        self._sum = np.array(state["sum"])

    def _flush(self) -> None:
        if self._rows:
            rows = np.concatenate(self._rows)
            product = rows.T @ rows
            if np.ndim(self._sum) == 0:
                self._sum = product.astype(np.float64)
            else:
                self._sum += product
            self._rows = []


def add_values(observer: Any, name: str, values: list[Any], positions: list[int]) -> None:
    """Let an observer have what a tensor was for samples, unless it had no values. StageError if some are not
    finite."""
    if observer.nothing(*values):
        return
    if not all(np.isfinite(value).all() for value in values):
        numbers = " or ".join(str(position + 1) for position in positions)
        raise StageError(
            f"Calibration sample {numbers} drives the tensor {name!r} to a value that is not finite.",
            "Look at that sample, and at the float model's output on it.",
        )
    observer.add(*values)


class Hessians:
    """The stage's matrices, read and factored as they are asked for; only the last factor is kept in memory."""

    def __init__(self, artifact: Artifact) -> None:
        self._matrices = read_shards(artifact.path, HESSIANS)
        self._last: tuple[tuple[str, ...], Curvature] | None = None
        self.damping: dict[str, float] = {}
        """By activation: the share of the mean diagonal that was added to make the matrix invertible."""

    def curvature(self, activations: tuple[str, ...]) -> Curvature:
        """Of a weight whose products read `activations`."""
        if self._last is None or self._last[0] != activations:
            try:
                found = curvature(self._matrices[activations[0]] if len(activations) == 1 else self.sum(activations))
            except np.linalg.LinAlgError as error:
                raise StageError(
                    f"GPTQ: the inputs {', '.join(activations)} have no invertible Hessian, however much it is damped.",
                    'Calibrate on other samples, or use rounding = "nearest".',
                ) from error
            self._last = (activations, found)
            self.damping |= dict.fromkeys(activations, found.damping)
        return self._last[1]

    def noted(self, activations: tuple[str, ...]) -> dict[str, float]:
        """The damping of those of the activations whose matrices were asked for."""
        return {name: self.damping[name] for name in activations if name in self.damping}

    def restore(self, noted: Sequence[dict[str, float]]) -> None:
        """Take over what an earlier run noted."""
        for each in noted:
            self.damping |= each

    def sum(self, activations: tuple[str, ...]) -> Double:
        """The sum of x x^T over the inputs x of all of them, float64 [channels, channels]."""
        first, *others = activations
        total: Double = self._matrices[first].astype(np.float64)
        for name in others:
            total += self._matrices[name]
        return total
