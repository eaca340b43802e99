"""Which products are a model's last, and the formats of a scheme with what it says of those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from pipeline.core.errors import StageError
from pipeline.core.types import Scheme
from pipeline.formats.format import Layer
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.edit import constant, is_constant

_BY_VALUE = ("Add", "Cast", "Div", "Identity", "LogSoftmax", "Mul", "Sigmoid", "Softmax", "Sub", "Tanh")
"""What may stand between a last product and the output: a bias, a soft cap, probabilities."""


def formats_of(scheme: Scheme, layers: Sequence[Layer], measured: Mapping[str, str] | None = None) -> SchemeFormats:
    """The scheme's formats for the layers of a graph. `measured`: node -> format, where a measurement chose it.
    StageError if the scheme speaks of the head of a graph that has none."""
    chosen = dict(measured or {})
    head = SchemeFormats(scheme).head
    if head is not None:
        found = [layer for layer in layers if is_head(layer)]
        if not found and not _left_in_float(layers):
            raise StageError(
                f"The scheme {scheme.name!r} sets head = {scheme.head}, but no product with weights makes an output of "
                "the graph.",
                "Leave `head` out, or name layers with [scheme.overrides].",
            )
        chosen |= {str(layer.node.name): head.name for layer in found}
    return SchemeFormats(scheme, chosen=chosen)


def _left_in_float(layers: Sequence[Layer]) -> bool:
    """Whether the graph has a last product that is none of the layers: one too small to be worth rounding, say."""
    nodes = layers[0].node.graph if layers else None
    last = [node for node in nodes or () if node.op_type == "MatMul" and _ends(node.outputs[0])]
    return any(is_constant(node.inputs[1]) for node in last)


def is_head(layer: Layer) -> bool:
    """Whether a layer is a product whose result is an output of the graph, up to what changes value by value."""
    return layer.op == "linear" and _ends(layer.node.outputs[0])


def _ends(value: ir.Value) -> bool:
    if value.is_graph_output():
        return True
    readers = value.consumers()
    return len(readers) == 1 and _passes(readers[0], value) and _ends(readers[0].outputs[0])


def _passes(node: ir.Node, value: ir.Value) -> bool:
    """Whether all that a node reads beside `value` is constant."""
    others = (read for read in node.inputs if read is not value)
    return node.op_type in _BY_VALUE and all(read is None or constant(read) is not None for read in others)
