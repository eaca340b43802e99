"""A graph in segments that run one after the other: what is watched in one takes memory only as long as it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from pipeline.graph.edit import name_of

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class Segment:
    """Nodes between two places of a graph: values of the segment before that it reads, those that it is `watched` for,
    and those that later segments read."""

    inputs: tuple[str, ...]
    watched: tuple[str, ...]
    outputs: tuple[str, ...]

    def model(self, whole: ir.Model) -> ir.Model:
        """The segment of `whole` as a model. It reads inputs of the whole model too."""
        given = [*self.inputs, *(name_of(value) for value in whole.graph.inputs)]
        graph = ir.convenience.extract(whole.graph, given, list(dict.fromkeys((*self.watched, *self.outputs))))
        for value in [value for value in graph.inputs if not value.uses() and not value.is_graph_output()]:
            graph.inputs.remove(value)
        return ir.Model(graph, ir_version=whole.ir_version)


def segments(whole: ir.Model, bytes_of: Mapping[str, int], most: int) -> list[Segment]:
    """Cut a graph where one float and nothing else but other kinds of values goes on, as between the blocks of a
    decoder, so that what is watched in a segment takes `most` bytes, or is of one block. `bytes_of`: the values to
    watch, and what each takes."""
    order = _needed(whole, list(bytes_of))
    cuts = _chosen(order, bytes_of, most)
    found = []
    for begin, end in zip([0, *cuts], [*cuts, len(order.made)], strict=True):
        watched = tuple(name for names in order.made[begin:end] for name in names if name in bytes_of)
        found.append(Segment(order.live(begin), watched, order.live(end)))
    given = tuple(name for name in bytes_of if name not in {each for segment in found for each in segment.watched})
    if given:  # inputs of the model itself
        found[0] = Segment(found[0].inputs, (*given, *found[0].watched), found[0].outputs)
    return found


@dataclass(frozen=True)
class _Order:
    """By node, in their order: names of what it makes; by name, the place behind its last reader; what is a float."""

    made: Sequence[tuple[str, ...]]
    ends: Mapping[str, int]
    floats: frozenset[str]

    def live(self, place: int) -> tuple[str, ...]:
        """What nodes before the place make and others read."""
        before = (name for names in self.made[:place] for name in names)
        return tuple(name for name in before if self.ends.get(name, 0) > place)


def _needed(whole: ir.Model, watched: Sequence[str]) -> _Order:
    """Of the nodes that what is watched depends on."""
    given = [name_of(value) for value in whole.graph.inputs]
    made = {str(value.name) for node in whole.graph for value in node.outputs}
    graph = ir.convenience.extract(whole.graph, given, [name for name in watched if name in made])
    RemoveUnusedNodesPass()(ir.Model(graph, ir_version=whole.ir_version))
    ends: dict[str, int] = {}
    floats: set[str] = set()
    for place, node in enumerate(graph):
        ends |= {name_of(value): place + 1 for value in node.inputs if value is not None and value.producer()}
        floats |= {name_of(value) for value in node.outputs if value.dtype is None or value.dtype in _FLOATS}
    names = [tuple(str(value.name) for value in node.outputs) for node in graph]
    return _Order(names, ends, frozenset(floats))


def _chosen(order: _Order, bytes_of: Mapping[str, int], most: int) -> list[int]:
    """Where to cut: as seldom as `most` allows."""
    cuts: list[int] = []
    last, taken, since = 0, 0, 0
    for place, names in enumerate(order.made, start=1):
        since += sum(bytes_of.get(name, 0) for name in names)
        if place < len(order.made) and sum(name in order.floats for name in order.live(place)) == 1:
            if taken + since > most and last > (cuts[-1] if cuts else 0):
                cuts.append(last)
                taken = 0
            last, taken, since = place, taken + since, 0
    if taken + since > most and last > (cuts[-1] if cuts else 0):
        cuts.append(last)
    return cuts
