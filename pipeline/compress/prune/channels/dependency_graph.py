"""Following channels through a model: every value of its graph is labelled with the units that its entries belong to.

Written here since Torch-Pruning 1.6.1, the library for it, couples the padded shortcuts of CIFAR ResNets by position
(its pruned ResNet-20 does not run) and does not say what it leaves alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from pipeline.compress.edits.features import SHRINKABLE
from pipeline.compress.prune.channels.union_find import PLAIN, ZERO, UnionFind
from pipeline.compress.shared.tied import other_names
from pipeline.core.errors import StageError, first_line

Value = Tensor | Sequence[Tensor | None] | None
"""Labels int64 of a tensor, of size 1 along the axes where they do not vary; of several tensors; none."""

_aten = torch.ops.aten
_MOVES = {
    *(_aten.view, _aten.reshape, _aten.flatten, _aten.unflatten, _aten.permute, _aten.transpose, _aten.t),
    *(_aten.movedim, _aten.squeeze, _aten.unsqueeze, _aten.expand, _aten.repeat, _aten.cat, _aten.concat),
    *(_aten.stack, _aten.flip, _aten.numpy_T, _aten.pixel_shuffle, _aten.pixel_unshuffle, _aten.channel_shuffle),
}
"""Operators that only move entries: what they do to values, they do to labels."""
_CUTS = {
    *(_aten.slice, _aten.select, _aten.split, _aten.split_with_sizes, _aten.chunk, _aten.unbind, _aten.narrow),
}
"""Operators that take parts along an axis `dim`."""
_SAME = {
    *(_aten.dropout, _aten.dropout_, _aten.feature_dropout, _aten.contiguous, _aten.clone, _aten.detach, _aten.alias),
    *(_aten.to, _aten._to_copy, _aten.hardswish, _aten.hardswish_),
}
"""Operators that work on single entries, though torch does not tag them so."""
_POOLS = {
    *(_aten.max_pool1d, _aten.max_pool2d, _aten.max_pool3d, _aten.avg_pool1d, _aten.avg_pool2d, _aten.avg_pool3d),
    *(_aten.adaptive_avg_pool1d, _aten.adaptive_avg_pool2d, _aten.adaptive_avg_pool3d, _aten.adaptive_max_pool2d),
    *(_aten.upsample_nearest1d, _aten.upsample_nearest2d, _aten.upsample_bilinear2d, _aten.upsample_bicubic2d),
}
_REDUCTIONS = {_aten.mean, _aten.sum, _aten.amax, _aten.amin, _aten.var, _aten.std, _aten.linalg_vector_norm}
_CONVOLUTIONS = {_aten.conv1d, _aten.conv2d, _aten.conv3d}
_TRANSPOSED = {_aten.conv_transpose1d, _aten.conv_transpose2d, _aten.conv_transpose3d}


@dataclass
class DependencyGraph:
    """What was found: per module (in the order they run) the labels of the features that it computes (`outputs`), reads
    through weights (`inputs`), and passes on with values of their own for each (`carried`: batch norms)."""

    partition: UnionFind = field(default_factory=UnionFind)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    carried: dict[str, Tensor] = field(default_factory=dict)


def dependency_graph(model: nn.Module, example: dict[str, Tensor]) -> DependencyGraph:
    """Trace `model` on one input as `torch.export` does, and follow its channels. StageError if that fails."""
    try:
        program = torch.export.export(model, (), example)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise StageError(
            f"prune: the channels of {type(model).__name__} cannot be followed, since torch.export cannot trace it: "
            f"{first_line(error)}",
            "Use another unit, or remove the prune pass from the recipe.",
        ) from error
    signature = program.graph_signature
    follower = _Follower(model, {**signature.inputs_to_parameters, **signature.inputs_to_buffers})
    for node in program.graph.nodes:
        follower.visit(node)
    return follower.found


class _Follower:
    """Walks a graph in order. `names`: placeholder -> parameter or buffer."""

    def __init__(self, model: nn.Module, names: dict[str, str]) -> None:
        self.found = DependencyGraph()
        self._model, self._names, self._others = model, names, other_names(model)
        self._values: dict[fx.Node, Value] = {}

    def visit(self, node: fx.Node) -> None:
        if node.op == "output":
            self._lock(node, "it is an output of the model")
        elif node.op == "call_function":
            self._values[node] = self._rule(node)(node) if self._labelled(node) or _produces(node) else None

    def _rule(self, node: fx.Node) -> Callable[[fx.Node], Value]:
        packet = getattr(node.target, "overloadpacket", node.target)
        for operators, rule in self._rules().items():
            if packet in operators:
                return rule
        if torch.Tag.pointwise in getattr(node.target, "tags", ()):
            return self._pointwise
        return self._unknown

    def _rules(self) -> dict[frozenset[Any], Callable[[fx.Node], Value]]:
        return {
            frozenset(_MOVES): self._move,
            frozenset(_CUTS): self._cut,
            frozenset(_SAME): self._pointwise,
            frozenset(_POOLS): self._pool,
            frozenset(_REDUCTIONS): self._reduce,
            frozenset(_CONVOLUTIONS): self._convolution,
            frozenset(_TRANSPOSED): self._transposed,
            frozenset({_aten.linear}): self._linear,
            frozenset({_aten.batch_norm, _aten.instance_norm, _aten.prelu}): self._carry,
            frozenset({_aten.pad, _aten.constant_pad_nd}): self._pad,
            frozenset({operator.getitem}): self._item,
        }

    def _labelled(self, node: fx.Node) -> list[fx.Node]:
        return [other for other in node.all_input_nodes if self._values.get(other) is not None]

    def _lock(self, node: fx.Node, reason: str) -> None:
        for other in self._labelled(node):
            value = self._values[other]
            for labels in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(labels, Tensor):
                    self.found.partition.lock(labels, reason)

    def _unknown(self, node: fx.Node) -> None:
        self._lock(node, f"channels cannot be followed through {_name(node)}")

    def _move(self, node: fx.Node) -> Value:
        arguments = map_arg(node.args, self._full)
        moved = node.target(*arguments, **map_arg(node.kwargs, self._full))  # type: ignore[operator]  # an operator
        if isinstance(moved, (tuple, list)):
            return [compact(one) for one in moved]
        labels = compact(moved)
        if sum(size > 1 for size in labels.shape) > 1:  # channels in rows and columns
            self._lock(node, f"{_name(node)} divides them by numbers in the model's code")
        return labels

    def _cut(self, node: fx.Node) -> Value:
        """Parts of a channel are that channel; the channels themselves are cut where the code says."""
        (axis,), _ = _dims(node)
        if self._tensor(node.args[0]).shape[axis] > 1:
            self._lock(node, f"{_name(node)} divides them by numbers in the model's code")
        return self._move(node)

    def _full(self, node: fx.Node) -> Tensor:
        """Labels of every entry; PLAIN where there are none."""
        value = self._values.get(node)
        labels = value if isinstance(value, Tensor) else torch.tensor(PLAIN)
        return labels.expand(node.meta["val"].shape).contiguous()

    def _pad(self, node: fx.Node) -> Value:
        """Zeros beside a channel's own entries change nothing; whole channels of zeros are labelled so."""
        labels, widths = self._tensor(node.args[0]), list(node.args[1])  # type: ignore[arg-type]
        for place in range(0, len(widths), 2):
            axis = labels.dim() - 1 - place // 2
            if labels.shape[axis] == 1 and (axis != 1 or _shape(node.args[0])[1] != 1):
                widths[place : place + 2] = 0, 0
        return nn.functional.pad(labels, widths, value=ZERO)

    def _item(self, node: fx.Node) -> Value:
        values, place = self._values[node.args[0]], node.args[1]  # type: ignore[index]
        return values[place] if isinstance(values, (tuple, list)) else values  # type: ignore[index]

    def _pointwise(self, node: fx.Node) -> Value:
        """Entries that are combined belong together."""
        shape = node.meta["val"].shape
        followed = [other for other in node.all_input_nodes if isinstance(self._values.get(other), Tensor)]
        given = self._spread([(self._tensor(other), _shape(other)) for other in followed], shape)
        merged = given[0] if given else torch.full([1] * len(shape), PLAIN)
        for labels in given[1:]:
            one, two = torch.broadcast_tensors(merged, labels)  # type: ignore[no-untyped-call]  # as torch ships it
            self.found.partition.unite(one, two)
            merged = torch.maximum(one, two)
        for other in set(node.all_input_nodes) - set(followed):
            sizes = _aligned(_shape(other), len(shape))
            if any(size > 1 and varies > 1 for size, varies in zip(sizes, merged.shape, strict=True)):
                self.found.partition.unite(merged, torch.tensor(PLAIN).expand(merged.shape))
        return merged

    def _spread(self, given: list[tuple[Tensor, tuple[int, ...]]], shape: Sequence[int]) -> list[Tensor]:
        """Labels aligned to `shape`, without those of single features that meet many channels: these are locked."""
        rank, result = len(shape), []
        aligned = [(labels.reshape(_aligned(labels.shape, rank)), _aligned(sizes, rank)) for labels, sizes in given]
        varying = [axis for axis in range(rank) if any(labels.shape[axis] > 1 for labels, _ in aligned)]
        for labels, sizes in aligned:
            if any(sizes[axis] == 1 and shape[axis] > 1 for axis in varying):
                self.found.partition.lock(labels, "one feature is combined with many channels")
            else:
                result.append(labels)
        return result

    def _pool(self, node: fx.Node) -> Value:
        labels = self._tensor(node.args[0])
        if self._vector(labels, 1) is None:
            self._unknown(node)
            return None
        value = node.meta["val"]
        return labels if isinstance(value, Tensor) else [labels for _ in value]

    def _reduce(self, node: fx.Node) -> Value:
        labels = self._tensor(node.args[0])
        dims, keep = _dims(node)
        if any(labels.shape[dim] != 1 for dim in dims):
            self._unknown(node)
            return None
        return labels if keep else labels.reshape([n for dim, n in enumerate(labels.shape) if dim not in dims])

    def _carry(self, node: fx.Node) -> Value:
        """Batch norms and the like: values of their own for each channel."""
        labels = self._tensor(node.args[0])
        vector = self._vector(labels, 1)
        modules = [self._module(other) for other in node.all_input_nodes[1:]]
        if vector is None or None in modules:
            self._unknown(node)
            return None
        for module in sorted({module for module in modules if module is not None}):
            self._note(self.found.carried, module, vector.expand(_shape(node.args[0])[1]))
        return labels

    def _linear(self, node: fx.Node) -> Value:
        value, weight = node.args[0], node.args[1]
        outputs = self._weighted(node, value, weight, len(_shape(value)) - 1, 1)
        return outputs.reshape([1] * (len(node.meta["val"].shape) - 1) + [-1]) if outputs is not None else None

    def _convolution(self, node: fx.Node) -> Value:
        groups = node.args[6] if len(node.args) > 6 else 1
        outputs = self._weighted(node, node.args[0], node.args[1], 1, groups)  # type: ignore[arg-type]
        return _as_channels(outputs, node)

    def _transposed(self, node: fx.Node) -> Value:
        if len(node.args) > 6 and node.args[6] != 1:
            self._unknown(node)
            return None
        outputs = self._weighted(node, node.args[0], node.args[1], 1, 1, output=1)
        return _as_channels(outputs, node)

    def _weighted(
        self, node: fx.Node, value: Any, weight: Any, axis: int, groups: int, output: int = 0
    ) -> Tensor | None:
        """Note what a module with a weight reads and computes; the labels of the latter [features]."""
        module = self._module(weight)
        if module is None:
            self._lock(node, f"the weight of {_name(node)} does not belong to one module alone")
            return None
        if module not in self.found.outputs:
            self.found.outputs[module] = self.found.partition.new(_shape(weight)[output])
        outputs, size = self.found.outputs[module], _shape(value)[axis]
        vector = self._vector(self._tensor(value), axis)
        if vector is None:
            self._lock(node, f"{module} reads channels that differ from place to place")
        elif groups == 1:
            self._note(self.found.inputs, module, vector.expand(size))
        else:
            self._couple(vector.expand(size), outputs, groups)
        return outputs

    def _module(self, parameter: Any) -> str | None:
        """The module that holds a parameter or buffer; None unless it is one whose features can be removed."""
        name = self._names.get(getattr(parameter, "name", ""), "")
        module = name.rpartition(".")[0]
        known = bool(name) and not self._others.get(name) and isinstance(self._model.get_submodule(module), SHRINKABLE)
        return module if known else None

    def _couple(self, inputs: Tensor, outputs: Tensor, groups: int) -> None:
        """All that a group of a grouped convolution reads and computes goes or stays together."""
        for read, computed in zip(inputs.chunk(groups), outputs.chunk(groups), strict=True):
            everything = torch.cat([read, computed])
            self.found.partition.unite(everything, computed[0].expand(len(everything)))

    def _note(self, noted: dict[str, Tensor], module: str, labels: Tensor) -> None:
        if module in noted:
            self.found.partition.unite(noted[module], labels)
        else:
            noted[module] = labels

    def _tensor(self, node: Any) -> Tensor:
        value = self._values.get(node)
        return value if isinstance(value, Tensor) else torch.full([1] * len(_shape(node)), PLAIN)

    @staticmethod
    def _vector(labels: Tensor, axis: int) -> Tensor | None:
        """Labels along `axis`; None if they vary along another one."""
        return labels.flatten() if labels.numel() == labels.shape[axis] else None


def compact(labels: Tensor) -> Tensor:
    """Size 1 along every axis along which the labels do not vary."""
    for axis in range(labels.dim()):
        first = labels.narrow(axis, 0, 1)
        if labels.shape[axis] > 1 and bool((labels == first).all()):
            labels = first
    return labels.contiguous()


def _as_channels(outputs: Tensor | None, node: fx.Node) -> Tensor | None:
    if outputs is None:
        return None
    return outputs.reshape([1, -1] + [1] * (len(node.meta["val"].shape) - 2))


def _dims(node: fx.Node) -> tuple[set[int], bool]:
    """The axes that an operator is told (`dim`; all if there are none), and whether they stay with size 1."""
    rank, arguments = len(_shape(node.args[0])), node.target._schema.arguments  # type: ignore[union-attr]
    given = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    given |= {**dict(zip((argument.name for argument in arguments), node.args, strict=False)), **node.kwargs}
    dims = given.get("dim")
    axes = range(rank) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    return {int(axis) % rank for axis in axes}, bool(given.get("keepdim", False))


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _produces(node: fx.Node) -> bool:
    packet = getattr(node.target, "overloadpacket", None)
    return packet in _CONVOLUTIONS or packet in _TRANSPOSED or packet is _aten.linear


def _aligned(sizes: Sequence[int], rank: int) -> list[int]:
    """Broadcasting: missing leading axes have size 1."""
    return [*[1] * (rank - len(sizes)), *sizes]


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "overloadpacket", node.target)).removeprefix("aten.")
