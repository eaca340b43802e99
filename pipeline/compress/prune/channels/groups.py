"""The channels of a model as units: what one layer computes, with all that has to go when one of them goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from pipeline.compress.edits.base import Edit
from pipeline.compress.edits.channels import KeepChannels, Kept
from pipeline.compress.edits.features import CONVOLUTIONS, TRANSPOSED, Side, features
from pipeline.compress.prune.channels.dependency_graph import DependencyGraph, dependency_graph
from pipeline.compress.prune.channels.probe import probe
from pipeline.compress.prune.units import Slices, UnitKind
from pipeline.core.errors import StageError

Place = tuple[str, Side]
_Role = tuple[str, str]
"""(`outputs`, `inputs` or `carried`; module): one of the places where a unit has features."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that the same layers compute, carry (batch norms) and read. A unit has one channel in most layers; a
    whole group of a grouped convolution; after flattening, a column for every place. `fixed`: why they must stay."""

    layer: str
    count: int
    producers: tuple[Slices, ...]
    consumers: tuple[Slices, ...]
    carriers: tuple[Slices, ...]
    sizes: dict[Place, int]
    fixed: str = ""

    def edit(self, keep: Sequence[int]) -> KeepChannels:
        gone = sorted(set(range(self.count)) - set(keep))
        places: list[tuple[Slices, Side]] = [(slices, "output") for slices in (*self.producers, *self.carriers)]
        places += [(slices, "input") for slices in self.consumers]
        return KeepChannels(layers=tuple(self._kept(slices, side, gone) for slices, side in places))

    def _kept(self, slices: Slices, side: Side, gone: Sequence[int]) -> Kept:
        removed = set(slices.indices(self.count)[list(gone)].flatten().tolist())
        stay = tuple(index for index in range(self.sizes[slices.module, side]) if index not in removed)
        return Kept(module=slices.module, axis=side, keep=stay)


def find_channels(model: nn.Module, example: dict[str, Tensor]) -> list[ChannelGroup]:
    """Every group of channels, in the order in which they are computed; those that must stay say why (`fixed`).
    StageError if the model has no convolution, or cannot be traced."""
    if not any(isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) for module in model.modules()):
        raise StageError(
            f"prune: {type(model).__name__} has no convolutions, so no channels.",
            'Use unit = "ffn" or "heads", or remove the prune pass from the recipe.',
        )
    groups = collect(model, dependency_graph(model, example))
    free = [group for group in groups if not group.fixed]
    reasons = dict(zip((id(group) for group in free), probe(model, example, free), strict=True))
    return [replace(group, fixed=reasons.get(id(group), group.fixed)) for group in groups]


def collect(model: nn.Module, found: DependencyGraph) -> list[ChannelGroup]:
    """Units with features in the same places, as many in each, form a group."""
    units: dict[int, dict[_Role, list[int]]] = defaultdict(lambda: defaultdict(list))
    for role in ("outputs", "inputs", "carried"):
        for module, labels in getattr(found, role).items():
            for index, label in enumerate(labels.tolist()):
                if label >= 0:
                    units[found.partition.find(label)][role, module].append(index)
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for unit, places in sorted(units.items()):
        shape = tuple((place, len(indices)) for place, indices in places.items())
        groups[shape, found.partition.reason(unit)].append(unit)
    names = _names(next(module for (role, module), _ in shape if role == "outputs") for shape, _ in groups)  # type: ignore[attr-defined]
    return [
        _group(model, name, [units[unit] for unit in members], str(reason))
        for name, ((_, reason), members) in zip(names, groups.items(), strict=True)
    ]


def _names(modules: Iterable[str]) -> list[str]:
    """Each group is called after the first layer that computes it; a second one of the same layer gets a number."""
    seen: dict[str, int] = defaultdict(int)
    result = []
    for module in modules:
        seen[module] += 1
        result.append(module if seen[module] == 1 else f"{module}#{seen[module]}")
    return result


def _group(model: nn.Module, name: str, members: list[dict[_Role, list[int]]], reason: str) -> ChannelGroup:
    slices: dict[str, list[Slices]] = {"outputs": [], "inputs": [], "carried": []}
    sizes: dict[Place, int] = {}
    for (role, module), indices in members[0].items():
        flat = tuple(index for member in members for index in member[role, module])
        slices[role].append(Slices(module, len(indices), flat))
        side: Side = "input" if role == "inputs" else "output"
        sizes[module, side] = features(model.get_submodule(module), side)
    producers = tuple(slices["outputs"])
    fixed = reason or _structure(model, producers, slices["inputs"], len(members))
    return ChannelGroup(name, len(members), producers, tuple(slices["inputs"]), tuple(slices["carried"]), sizes, fixed)


def _structure(model: nn.Module, producers: Sequence[Slices], consumers: Sequence[Slices], count: int) -> str:
    if not any(isinstance(model.get_submodule(one.module), (*CONVOLUTIONS, *TRANSPOSED)) for one in producers):
        return "no convolution computes them"
    if not consumers:
        return "no layer with weights reads them"
    return "it is the only one of its layer" if count == 1 else ""


def join(edits: Sequence[Edit]) -> list[Edit]:
    """One edit for groups that share layers (concatenations): a feature stays if every group lets it."""
    keeps: dict[Place, set[int]] = {}
    for edit in edits:
        assert isinstance(edit, KeepChannels)  # noqa: S101  # made by ChannelGroup
        for kept in edit.layers:
            place = (kept.module, kept.axis)
            keeps[place] = keeps.get(place, set(kept.keep)) & set(kept.keep)
    layers = (Kept(module=module, axis=axis, keep=tuple(sorted(keep))) for (module, axis), keep in keeps.items())
    return [KeepChannels(layers=tuple(layers))] if keeps else []


CHANNELS = UnitKind("channels", "convolution", 8, find_channels, traced=True, join=join)
