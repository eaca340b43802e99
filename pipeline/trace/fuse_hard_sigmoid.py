"""Hard-sigmoid and hard-swish as one and two operators, where converters wrote out three and four."""

from __future__ import annotations

import onnx_ir as ir

from pipeline.graph.edit import constant, emit, replace


def fuse_hard_sigmoids(graph: ir.Graph) -> int:
    """In place: `clip(x + b, 0, c) / c` becomes HardSigmoid(x), and `x * clip(x + b, 0, c) / c` becomes
    `x * HardSigmoid(x)`, with alpha 1 / c and beta b / c (Howard et al., arXiv 1905.02244, section 5.2: b = 3, c = 6).

    Returns how many. Where others read a step in between, all stay. Nodes that nobody reads any more are left behind.
    """
    return sum(_fuse(node) for node in list(graph))


def _fuse(node: ir.Node) -> bool:
    value, limit = _divided(node)
    if (gate := _gate(value, limit)) is not None:
        replace(node, _hard_sigmoid(node, *gate, limit))
        return True
    product = _made_by(value, "Mul")
    if product is None:
        return False
    for x, other in (product.inputs[:2], product.inputs[1::-1]):
        if (gate := _gate(other, limit)) is not None and gate[0] is x:
            (swish,) = emit(node, "Mul", [gate[0], _hard_sigmoid(node, *gate, limit)], [f"{node.name}/swish"])
            _pass_on(node, swish)
            replace(node, swish)
            return True
    return False


def _divided(node: ir.Node) -> tuple[ir.Value | None, float]:
    """Of `v / c` or `v * (1 / c)` with a constant c > 0: (v, c), else (None, 0)."""
    if node.op_type not in ("Div", "Mul") or node.domain:
        return None, 0.0
    places = ((0, 1),) if node.op_type == "Div" else ((0, 1), (1, 0))
    for place, other in places:
        number = _number(node.inputs[other])
        if number is not None and number > 0:
            return node.inputs[place], number if node.op_type == "Div" else 1 / number
    return None, 0.0


def _gate(value: ir.Value | None, limit: float) -> tuple[ir.Value, float] | None:
    """Of `clip(x + b, 0, limit)`: (x, b)."""
    clip = _made_by(value, "Clip")
    if clip is None or len(clip.inputs) < 3:
        return None
    low, high = _number(clip.inputs[1]), _number(clip.inputs[2])
    total = _made_by(clip.inputs[0], "Add")
    if total is None or low != 0.0 or high is None or abs(high - limit) > 1e-6 * limit:
        return None
    for x, other in (total.inputs[:2], total.inputs[1::-1]):
        if x is not None and (offset := _number(other)) is not None:
            return x, offset
    return None


def _made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node of this operator that makes the value, if only one node reads it."""
    node = None if value is None else value.producer()
    if value is None or node is None or node.op_type != op_type or node.domain:
        return None
    return node if len(value.uses()) == 1 and not value.is_graph_output() else None


def _number(value: ir.Value | None) -> float | None:
    array = constant(value)
    return None if array is None or array.size != 1 else float(array.reshape(()))


def _hard_sigmoid(node: ir.Node, x: ir.Value, offset: float, limit: float) -> ir.Value:
    (gate,) = emit(node, "HardSigmoid", [x], [f"{node.name}/gate"], alpha=1 / limit, beta=offset / limit)
    _pass_on(node, gate)
    return gate


def _pass_on(node: ir.Node, made: ir.Value) -> None:
    """The module that the tracer recorded."""
    producer = made.producer()
    assert producer is not None  # noqa: S101  # it was just emitted
    producer.metadata_props.update(node.metadata_props)
