"""Layers that become several thinner ones. The edits give their shapes; the values are stored beside them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field
from torch import nn

from pipeline.compress.edits.base import Edit
from pipeline.compress.edits.factorized import CpConv, LowRankEmbedding, LowRankLinear, Tucker2Conv
from pipeline.core.errors import StageError

Rank = Annotated[int, Field(gt=0)]
_Layer = TypeVar("_Layer", bound=nn.Module)


class FactorizeLinear(Edit):
    """The Linear `layer` [out, in] becomes two, of [rank, in] and [out, rank]."""

    edit: Literal["factorize_linear"] = "factorize_linear"
    layer: str
    rank: Rank

    def apply(self, model: nn.Module) -> None:
        layer = _find(model, self.layer, nn.Linear)
        _check(self.layer, self.rank, min(layer.weight.shape))
        _replace(model, self.layer, layer, LowRankLinear(layer, self.rank))


class FactorizeEmbedding(Edit):
    """The table `layer` [rows, dimensions] becomes one of [rows, rank] and a Linear [dimensions, rank]."""

    edit: Literal["factorize_embedding"] = "factorize_embedding"
    layer: str
    rank: Rank

    def apply(self, model: nn.Module) -> None:
        layer = _find(model, self.layer, nn.Embedding)
        _check(self.layer, self.rank, min(layer.weight.shape))
        _replace(model, self.layer, layer, LowRankEmbedding(layer, self.rank))


class FactorizeConv(Edit):
    """The convolution `layer` becomes a Tucker-2 of the ranks (out, in), or the four convolutions of a CP of one
    rank."""

    edit: Literal["factorize_conv"] = "factorize_conv"
    layer: str
    method: Literal["tucker2", "cp"]
    ranks: tuple[Rank, ...]

    def apply(self, model: nn.Module) -> None:
        layer = _find(model, self.layer, nn.Conv2d)
        if layer.groups != 1:
            raise StageError(f"The edits factorize {self.layer!r}, a convolution in {layer.groups} groups.")
        if len(self.ranks) != (2 if self.method == "tucker2" else 1):
            raise StageError(f"The edit of {self.layer!r} gives {len(self.ranks)} ranks for {self.method}.")
        if self.method == "cp":
            _replace(model, self.layer, layer, CpConv(layer, *self.ranks))
            return
        for rank, limit in zip(self.ranks, (layer.out_channels, layer.in_channels), strict=True):
            _check(self.layer, rank, limit)
        _replace(model, self.layer, layer, Tucker2Conv(layer, *self.ranks))


def _find(model: nn.Module, name: str, kind: type[_Layer]) -> _Layer:
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise StageError(f"The edits name {name!r}, which the model does not have.") from error
    if not isinstance(module, kind):
        raise StageError(f"The edits name {name!r} as a {kind.__name__}, but it is a {type(module).__name__}.")
    return module


def _check(name: str, rank: int, limit: int) -> None:
    if rank > limit:
        raise StageError(f"The edit of {name!r} gives it the rank {rank}, above its {limit}.")


def _replace(model: nn.Module, name: str, before: nn.Module, after: nn.Module) -> None:
    model.set_submodule(name, after.train(before.training))
