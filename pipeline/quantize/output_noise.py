"""The noise that rounding some layers makes in each output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.data.samples import open_samples
from pipeline.formats.format import Layer
from pipeline.formats.scheme import SchemeFormats
from pipeline.numerics.noise import noise_power, power
from pipeline.quantize.parts import Part
from pipeline.quantize.qdq_region import QdqRegion
from pipeline.quantize.quantize import Calibrated
from pipeline.quantize.ruined import Damage, Stored
from pipeline.quantize.trial import Trial

Powers: TypeAlias = NDArray[np.float64]


class OutputNoise:
    """Noise over the variance of each output, on some samples.

    Args:
        part: The graph, and the context of the stage that measures.
        formats: Those of its scheme.
        found: What calibration found.
        samples: How many of the calibration samples are run, taken evenly from all.
    """

    def __init__(self, part: Part, formats: SchemeFormats, found: Calibrated, samples: int) -> None:
        self._formats, self._trial = formats, Trial(part, found)
        every = open_samples(part.context.inputs["samples"].path)
        places = np.unique(np.linspace(0, len(every) - 1, min(samples, len(every))).round().astype(int))
        self._rows = every.part(places.tolist())
        self._reference = list(self._trial.every(part.file, self._rows))
        by_output = zip(*self._reference, strict=True)
        self._variances = np.array(
            [_variance(np.concatenate([output.ravel() for output in each])) for each in by_output]
        )

    @property
    def has_signal(self) -> bool:
        """Whether any output is float and not the same everywhere."""
        return bool(self._variances.any())

    def of(
        self,
        model: ir.Model,
        layers: list[Layer],
        region: QdqRegion,
        stored: Sequence[Stored] = (),
        damage: Damage | None = None,
    ) -> Powers:
        """Of rounding `layers` of the fresh `model`, float64 [outputs]; 0 of outputs that have no variance. `region`,
        `stored`: see `decide`; `damage`: what it is to take for what calibration found."""
        planned = self._trial.planned(model, layers, region, self._formats, self._rows, stored, damage)
        pairs = zip(self._reference, planned, strict=True)
        noise: Powers = np.sum([list(map(noise_power, *pair)) for pair in pairs], axis=0)
        return np.divide(noise, self._variances, out=np.zeros_like(noise), where=self._variances > 0)


def _variance(values: NDArray[Any]) -> float:
    if values.dtype.kind != "f":
        return 0.0
    finite = values[np.isfinite(values)].astype(np.float64)
    return power(finite - finite.mean()) if finite.size else 0.0
