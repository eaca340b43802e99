"""One layer with the ranks that it could have: what each costs and loses, and the values of its factors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.compress.edits.base import Edit
from pipeline.compress.edits.factorize import FactorizeConv, FactorizeEmbedding, FactorizeLinear
from pipeline.compress.low_rank.layers import Candidate, Places
from pipeline.core.errors import StageError
from pipeline.numerics.cp import cp
from pipeline.numerics.low_rank import Double, Spectrum, truncate
from pipeline.numerics.tucker import truncation_losses, tucker2, unwhitened, whitened

Ranks = tuple[int, ...]


class Cost(NamedTuple):
    """Of a layer's weights; biases stay as they are. `macs` of one sample."""

    parameters: int
    macs: int


class LayerDecomposition(ABC):
    """A layer that can be factorized. `weight`: what one unit of `loss` does to the model's outputs, where that is
    known."""

    def __init__(self, layer: Candidate, method: str, places: Places, weight: float = 1.0) -> None:
        self.layer, self.method, self.places, self.weight = layer, method, places, weight

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    @abstractmethod
    def whole(self) -> Cost:
        """As it is now."""

    @abstractmethod
    def ranks(self, step: int) -> list[Ranks]:
        """The ranks that are multiples of `step`, the cheapest first; also those that save nothing."""

    def ranks_from(self, given: int | tuple[int, int]) -> Ranks:
        """What a recipe's `rank` means here. A rank above all that there are is all of
        them. StageError if there are too many numbers."""
        ranks = (given,) if isinstance(given, int) else given
        if len(ranks) != 1:
            raise StageError(
                f"low_rank: rank gives {self.name!r} {list(ranks)}, but {self.method} has one rank.",
                "Two, [outputs, inputs], are for convolutions under tucker2 and tucker2_whitened.",
            )
        return ranks

    @abstractmethod
    def cost(self, ranks: Ranks) -> Cost:
        """After it is factorized."""

    @abstractmethod
    def loss(self, ranks: Ranks) -> float:
        """The squared error, of the outputs or of the weight, which only grows as ranks fall."""

    @property
    @abstractmethod
    def energy(self) -> float:
        """The loss if nothing is kept."""

    @abstractmethod
    def edit(self, ranks: Ranks) -> Edit:
        """The change of the model's structure."""

    @abstractmethod
    def factors(self, ranks: Ranks) -> Mapping[str, Tensor]:
        """The weights of the parts, by the parts' names."""


class MatrixDecomposition(LayerDecomposition):
    """A Linear, or an embedding, which is one that multiplies rows of the identity. `losses` at each rank."""

    def __init__(
        self, layer: Candidate, method: str, places: Places, spectrum: Spectrum, losses: Double, weight: float = 1.0
    ) -> None:
        super().__init__(layer, method, places, weight)
        self._spectrum, self._losses = spectrum, losses

    @property
    def whole(self) -> Cost:
        size = self.layer.module.weight.numel()
        return Cost(size, 0 if self._table else size * self.places.read)

    @property
    def energy(self) -> float:
        return float(self._losses[0])

    def ranks(self, step: int) -> list[Ranks]:
        return [(rank,) for rank in range(step, min(self.layer.module.weight.shape) + 1, step)]

    def ranks_from(self, given: int | tuple[int, int]) -> Ranks:
        (rank,) = super().ranks_from(given)
        return (min(rank, *self.layer.module.weight.shape),)

    def cost(self, ranks: Ranks) -> Cost:
        (rank,) = ranks
        rows, columns = self.layer.module.weight.shape
        multiplied = rank * (columns if self._table else rows + columns)
        return Cost(rank * (rows + columns), multiplied * self.places.read)

    def loss(self, ranks: Ranks) -> float:
        return float(self._losses[ranks[0]])

    def edit(self, ranks: Ranks) -> Edit:
        kind = FactorizeEmbedding if self._table else FactorizeLinear
        return kind(layer=self.name, rank=ranks[0])

    def factors(self, ranks: Ranks) -> Mapping[str, Tensor]:
        expand, reduce = truncate(self._spectrum, ranks[0])
        first = {"table": _tensor(reduce.T)} if self._table else {"reduce": _tensor(reduce)}
        return first | {"expand": _tensor(expand)}

    @property
    def _table(self) -> bool:
        return isinstance(self.layer.module, nn.Embedding)


class ConvDecomposition(LayerDecomposition):
    """What Tucker-2 and CP have in common."""

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        outputs, inputs, high, wide = self.layer.module.weight.shape
        return outputs, inputs, high, wide

    @property
    def _double(self) -> Double:
        return self.layer.module.weight.detach().numpy().astype(np.float64)

    @property
    def whole(self) -> Cost:
        size = self.layer.module.weight.numel()
        return Cost(size, size * self.places.given)


class TuckerDecomposition(ConvDecomposition):
    """Ranks (outputs, inputs). `scale`: the mean square of the inputs, so that a loss is one of outputs if they are
    independent, or the factor that whitens them (`numerics.tucker.whitened`); 1 for the loss of the weight."""

    def __init__(
        self, layer: Candidate, method: str, places: Places, scale: float | Double = 1.0, weight: float = 1.0
    ) -> None:
        super().__init__(layer, method, places, weight)
        self._factor = scale if isinstance(scale, np.ndarray) else None
        self._losses = truncation_losses(self._seen) * (1.0 if isinstance(scale, np.ndarray) else scale)

    @property
    def _seen(self) -> Double:
        return self._double if self._factor is None else whitened(self._double, self._factor)

    @property
    def energy(self) -> float:
        return float(self._losses[0, 0])

    def ranks(self, step: int) -> list[Ranks]:
        outputs, inputs = ([*range(step, size, step), size] for size in self._shape[:2])
        found = [(out_rank, in_rank) for out_rank in outputs for in_rank in inputs]
        return sorted(found, key=lambda ranks: self.cost(ranks).parameters)

    def ranks_from(self, given: int | tuple[int, int]) -> Ranks:
        out_rank, in_rank = (given, given) if isinstance(given, int) else given
        return min(out_rank, self._shape[0]), min(in_rank, self._shape[1])

    def cost(self, ranks: Ranks) -> Cost:
        outputs, inputs, high, wide = self._shape
        out_rank, in_rank = ranks
        reduce = in_rank * inputs if in_rank < inputs else 0
        core = out_rank * in_rank * high * wide
        expand = outputs * out_rank if out_rank < outputs else 0
        return Cost(reduce + core + expand, reduce * self.places.read + (core + expand) * self.places.given)

    def loss(self, ranks: Ranks) -> float:
        return float(self._losses[ranks])

    def edit(self, ranks: Ranks) -> Edit:
        return FactorizeConv(layer=self.name, method="tucker2", ranks=ranks)

    def factors(self, ranks: Ranks) -> Mapping[str, Tensor]:
        found = tucker2(self._seen, *ranks)
        if self._factor is not None:
            found = unwhitened(found, self._factor)
        parts = {"core": _tensor(found.core)}
        if ranks[1] < self._shape[1]:
            parts["reduce"] = _tensor(found.reduce)[:, :, None, None]
        if ranks[0] < self._shape[0]:
            parts["expand"] = _tensor(found.expand)[:, :, None, None]
        return parts


class CpDecomposition(ConvDecomposition):
    """One rank. Only the order of losses is known before a fit."""

    def __init__(self, layer: Candidate, places: Places, iterations: int, tolerance: float) -> None:
        super().__init__(layer, "cp", places)
        self._iterations, self._tolerance = iterations, tolerance

    @property
    def energy(self) -> float:
        return 1.0

    def ranks(self, step: int) -> list[Ranks]:
        outputs, inputs, high, wide = self._shape
        most = outputs * inputs * high * wide // (outputs + inputs + high + wide)
        return [(rank,) for rank in range(step, most + 1, step)]

    def cost(self, ranks: Ranks) -> Cost:
        outputs, inputs, high, wide = self._shape
        (rank,) = ranks
        between = self.places.between if high > 1 else self.places.read
        macs = inputs * self.places.read + high * between + (wide + outputs) * self.places.given
        return Cost(rank * (outputs + inputs + high + wide), rank * macs)

    def loss(self, ranks: Ranks) -> float:
        return 1.0 / (1 + ranks[0])

    def edit(self, ranks: Ranks) -> Edit:
        return FactorizeConv(layer=self.name, method="cp", ranks=ranks)

    def factors(self, ranks: Ranks) -> Mapping[str, Tensor]:
        fit = cp(self._double, ranks[0], self._iterations, self._tolerance)
        if not fit.converged:
            raise StageError(
                f"low_rank: the CP decomposition of {self.name!r} at rank {ranks[0]} did not converge: after "
                f"{fit.iterations} iterations the relative error is {fit.error:.3g} and still changes by "
                f"{fit.change:.1g} in each, above the tolerance of {self._tolerance:.1g}.",
                'Raise iterations or tolerance, change the rank, name the layer in ignore, or use method = "tucker2".',
            )
        found = fit.factors
        return {
            "reduce": _tensor(found.reduce.T)[:, :, None, None],
            "vertical": _tensor(found.vertical.T)[:, None, :, None],
            "horizontal": _tensor(found.horizontal.T)[:, None, None, :],
            "expand": _tensor(found.expand)[:, :, None, None],
        }


def _tensor(values: Double) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
