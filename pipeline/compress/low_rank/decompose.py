"""From layers to decompositions, through what calibration samples show where the method looks at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import nn

from pipeline.compress.low_rank.config import DATA_AWARE_METHODS, LowRank
from pipeline.compress.low_rank.input_moments import Moments, moments, output_curvature
from pipeline.compress.low_rank.layer_decomposition import (
    CpDecomposition,
    LayerDecomposition,
    MatrixDecomposition,
    TuckerDecomposition,
)
from pipeline.compress.low_rank.layers import Candidate, Places
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.core.errors import StageError
from pipeline.numerics import low_rank as maths


class Decompositions(NamedTuple):
    """`unseen`: layers whose inputs are all zero, or none, on the calibration samples. `ridges`: by layer, the share of
    the mean diagonal that made the second moments of its inputs invertible."""

    decompositions: list[LayerDecomposition]
    unseen: list[str]
    ridges: dict[str, float]


def make_decompositions(
    data: CalibrationData, layers: Sequence[Candidate], places: Mapping[str, Places], config: LowRank
) -> Decompositions:
    """One for each layer, in their order. Samples are looked at only if the method or the allocation does."""
    weights = output_curvature(data, layers) if config.by_sensitivity else dict.fromkeys(places, 1.0)
    decomposer = _Decomposer(config, places, weights)
    seen = [layer for layer in layers if config.by_sensitivity or config.by_kind[layer.kind] in DATA_AWARE_METHODS]
    for layer, found in moments(data, seen):
        decomposer.add(layer, found)
    unseen = {layer.name for layer in layers} - {layer.name for layer in seen}
    for layer in layers:
        if layer.name in unseen:
            decomposer.add(layer, None)
    return decomposer.made([layer.name for layer in layers])


class _Decomposer:
    """Decomposes layers as their moments come, so that no moments are kept."""

    def __init__(self, config: LowRank, places: Mapping[str, Places], weights: Mapping[str, float]) -> None:
        self._config, self._places, self._weights = config, places, weights
        self._found: dict[str, LayerDecomposition] = {}
        self._ridges: dict[str, float] = {}

    def add(self, layer: Candidate, seen: Moments | None) -> None:
        method, places, weight = self._config.by_kind[layer.kind], self._places[layer.name], self._weights[layer.name]
        if method == "cp":
            self._found[layer.name] = CpDecomposition(layer, places, self._config.iterations, self._config.tolerance)
        elif layer.kind == "conv":
            self._add_tucker(layer, method, seen)
        elif (spectrum := self._decomposed(layer, method, seen)) is not None:
            # by sensitivity losses must be those of outputs; else each method has its own singular values to go by
            gram = seen.gram if seen and self._config.by_sensitivity else None
            losses = maths.truncation_losses(spectrum, gram) if gram is not None else _energies(spectrum)
            self._found[layer.name] = MatrixDecomposition(layer, method, places, spectrum, losses, weight)

    def _add_tucker(self, layer: Candidate, method: str, seen: Moments | None) -> None:
        scale: float | maths.Double | None = 1.0
        if seen:
            mean_square = float(np.trace(seen.gram)) / len(seen.gram)
            scale = self._whitening(layer.name, seen) if method == "tucker2_whitened" else mean_square
        if scale is not None:
            places, weight = self._places[layer.name], self._weights[layer.name]
            self._found[layer.name] = TuckerDecomposition(layer, method, places, scale, weight)

    def made(self, order: Sequence[str]) -> Decompositions:
        unseen = [name for name in order if name not in self._found]
        return Decompositions([self._found[name] for name in order if name in self._found], unseen, self._ridges)

    def _decomposed(self, layer: Candidate, method: str, seen: Moments | None) -> maths.Spectrum | None:
        """None if its inputs are all zero."""
        weight = layer.module.weight.detach().numpy()
        if isinstance(layer.module, nn.Embedding):
            weight = weight.T  # [dimensions, rows]: what multiplies rows of the identity
        if method == "svd" or seen is None:
            return maths.plain(weight)
        if method == "asvd":
            return maths.scaled(weight, maths.activation_scale(seen.magnitude, self._config.alpha))
        factor = self._whitening(layer.name, seen)
        return None if factor is None else maths.whitened(weight, factor)

    def _whitening(self, name: str, seen: Moments) -> maths.Double | None:
        """None if the inputs are all zero."""
        try:
            found = maths.whitening(seen.gram)
        except np.linalg.LinAlgError as error:
            raise StageError(
                f"low_rank: the inputs of {name!r} cannot be whitened: {error}.",
                'Give other calibration samples, name the layer in ignore, or use method = "asvd" or "tucker2".',
            ) from error
        if found is None:
            return None
        if found.ridge:
            self._ridges[name] = found.ridge
        return found.factor


def _energies(spectrum: maths.Spectrum) -> maths.Double:
    """Sums of squared singular values from each one on."""
    squares = np.square(spectrum.values)
    return np.append(np.cumsum(squares[::-1])[::-1], 0.0)
