"""Weights that a loop carries round unchanged, as converters write Keras' recurrent cells: read where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.graph.edit import graph_of
from pipeline.graph.onnx_ir import ir


@dataclass(frozen=True)
class _States:
    """Where the values lie that a loop carries: in its own inputs, in its body's inputs and in the body's outputs (its
    own outputs begin with them). ONNX, operators Loop and Scan."""

    count: int
    inputs: int
    body_inputs: int
    body_outputs: int


def hoist_invariants(graph: ir.Graph) -> None:
    """In place: a value that every turn of a Loop or Scan hands on as it came is no state of it any more. The body
    reads the value from outside, and so does who read the loop's output: if it is a weight, its products can be
    quantized.

    What the graph, or a body that does not have the value itself, gives as an output stays a state: it would have no
    producer there.
    """
    for node in reversed(list(graph.all_nodes())):  # inner loops first: what they hand on may be handed on outside too
        if node.op_type in ("Loop", "Scan") and not node.domain:
            places = list(_invariants(node, states := _states(node), graph))
            if places:
                _without(node, states, places)


def _states(node: ir.Node) -> _States:
    if node.op_type == "Loop":
        return _States(len(node.inputs) - 2, 2, 2, 1)
    return _States(len(node.inputs) - node.attributes["num_scan_inputs"].as_int(), 0, 0, 0)


def _invariants(node: ir.Node, states: _States, top: ir.Graph) -> Iterator[int]:
    body = _body(node)
    for place in range(states.count):
        given, inner = node.inputs[states.inputs + place], body.inputs[states.body_inputs + place]
        handed_on = body.outputs[states.body_outputs + place]
        elsewhere = sum(value is inner for value in body.outputs) - (handed_on is inner)
        if given is None or elsewhere or _origin(handed_on) is not inner:
            continue
        own = given.graph is node.graph and node.graph is not top
        if own or not node.outputs[place].is_graph_output():
            yield place


def _origin(value: ir.Value) -> ir.Value:
    """What Identity operators hand on as `value`."""
    while (node := value.producer()) is not None and node.op_type == "Identity" and not node.domain:
        behind = node.inputs[0]
        if behind is None:
            break
        value = behind
    return value


def _without(node: ir.Node, states: _States, places: Sequence[int]) -> None:
    """The loop without those states."""
    body = _body(node)
    for place in reversed(places):
        given = node.inputs[states.inputs + place]
        assert given is not None  # noqa: S101  # `_invariants` asked
        body.outputs.pop(states.body_outputs + place)
        ir.convenience.replace_all_uses_with(node.outputs[place], given, replace_graph_outputs=True)
        ir.convenience.replace_all_uses_with(body.inputs[states.body_inputs + place], given)
        body.inputs.pop(states.body_inputs + place)
    gone = {states.inputs + place for place in places}
    inputs = [value for place, value in enumerate(node.inputs) if place not in gone]
    outputs = [value for place, value in enumerate(node.outputs) if place not in places]
    _replace(node, inputs, outputs)


def _replace(node: ir.Node, inputs: Sequence[ir.Value | None], outputs: Sequence[ir.Value]) -> None:
    """The same operator with fewer inputs and outputs, which keep their names; none if it gives nothing any more."""
    graph = graph_of(node)
    if outputs:
        kept = list(node.attributes.values())
        made = ir.Node(node.domain, node.op_type, inputs, kept, num_outputs=len(outputs), name=node.name)
        for old, new in zip(outputs, made.outputs, strict=True):
            new.name, new.type, new.shape = old.name, old.type, old.shape
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        graph.insert_before(node, made)
    graph.remove(node, safe=True)


def _body(node: ir.Node) -> ir.Graph:
    return node.attributes["body"].as_graph()
