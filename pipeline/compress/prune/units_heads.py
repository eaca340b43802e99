"""Finding the attention heads of a transformer, a group of query heads with the key-value head that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pipeline.compress.edits.base import linear
from pipeline.compress.edits.heads import KeepHeads
from pipeline.compress.prune.units import Slices, UnitKind
from pipeline.core.errors import StageError


@dataclass(frozen=True)
class Layout:
    """Where an attention class keeps its projections (`..` is the parent module) and its head size."""

    query: str
    key: str
    value: str
    output: str
    head_dim: str


_BERT = Layout("query", "key", "value", "../output.dense", "attention_head_size")
_DISTILBERT = Layout("q_lin", "k_lin", "v_lin", "out_lin", "attention_head_size")
_PROJ = Layout("q_proj", "k_proj", "v_proj", "o_proj", "head_dim")

LAYOUTS: dict[str, Layout] = {
    **dict.fromkeys(
        (
            "BertSelfAttention",
            "RobertaSelfAttention",
            "XLMRobertaSelfAttention",
            "CamembertSelfAttention",
            "ElectraSelfAttention",
        ),
        _BERT,
    ),
    "DistilBertSelfAttention": _DISTILBERT,
    **dict.fromkeys(
        ("ViTAttention", "DeiTAttention", "LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention"),
        _PROJ,
    ),
}
"""Attention classes of transformers 5 whose forward takes the number of heads from the shapes of its projections."""


@dataclass(frozen=True)
class Heads:
    """The heads of one attention module: `count` key-value heads, each with `group` query heads."""

    layer: str
    layout: Layout
    head_dim: int
    group: int
    count: int
    carriers: tuple[Slices, ...] = ()
    fixed: str = ""

    @property
    def producers(self) -> tuple[Slices, ...]:
        layout, narrow = self.layout, self.head_dim
        wide = Slices(self._name(layout.query), self.group * narrow)
        return (wide, Slices(self._name(layout.key), narrow), Slices(self._name(layout.value), narrow))

    @property
    def consumers(self) -> tuple[Slices, ...]:
        return (Slices(self._name(self.layout.output), self.group * self.head_dim),)

    def edit(self, keep: Sequence[int]) -> KeepHeads:
        query, key, value = (slices.module for slices in self.producers)
        return KeepHeads(
            attention=self.layer,
            query=query,
            key=key,
            value=value,
            output=self.consumers[0].module,
            head_dim=self.head_dim,
            group=self.group,
            keep=tuple(keep),
        )

    def _name(self, place: str) -> str:
        if place.startswith("../"):
            return f"{self.layer.rpartition('.')[0]}.{place[3:]}"
        return f"{self.layer}.{place}"


def attention_heads(model: nn.Module) -> list[Heads]:
    """The heads of every attention module. StageError if there are none, or if any is of a class not in LAYOUTS."""
    modules = {name: module for name, module in model.named_modules() if _projects(module)}
    unknown = sorted({type(module).__name__ for module in modules.values()} - set(LAYOUTS))
    if unknown:
        raise StageError(
            f"prune: the attention heads of {type(model).__name__} are built by {', '.join(unknown)}, which prune "
            "does not know.",
            f'It knows {", ".join(LAYOUTS)}. Use unit = "ffn", or remove the prune pass from the recipe.',
        )
    if not modules:
        raise StageError(
            f"prune: {type(model).__name__} has no attention heads.",
            'Use unit = "ffn", or remove the prune pass from the recipe.',
        )
    return [_heads(model, name, module) for name, module in modules.items()]


def _projects(module: nn.Module) -> bool:
    """An attention module that holds projections itself; BertAttention and the like only hold another one."""
    return "Attention" in type(module).__name__ and any(isinstance(child, nn.Linear) for child in module.children())


def _heads(model: nn.Module, name: str, module: nn.Module) -> Heads:
    layout = LAYOUTS[type(module).__name__]
    head_dim = int(getattr(module, layout.head_dim))
    found = Heads(name, layout, head_dim, 1, 1)
    query, key, value = (linear(model, slices.module).out_features for slices in found.producers)
    read = linear(model, found.consumers[0].module).in_features
    if query % head_dim or key % head_dim or query % key or value != key or read != query:
        raise StageError(
            f"prune: the heads of {name!r} do not divide: {query} query, {key} key and {value} value features in "
            f"heads of {head_dim}, {read} features read.",
            'Use unit = "ffn", or remove the prune pass from the recipe.',
        )
    return Heads(name, layout, head_dim, query // key, key // head_dim)


HEADS = UnitKind("heads", "attention layer", 1, attention_heads)
