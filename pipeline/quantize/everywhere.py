"""Which tensors are rounded where all operators run on codes, as NPUs want it (`Scheme.everywhere`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from pipeline.formats.format import Layer
from pipeline.graph.edit import constant, fixed_values, name_of
from pipeline.quantize.qdq_region import QdqRegion

MASKED = -100.0
"""The least value that gets a code where a mask takes scores away: the softmax of what is lower is 0 in any format."""
_MASK = -5000.0
"""What is lower is a mask (`trace.fix_shapes` leaves none below -10,000)."""
_MOVES = frozenset(
    (
        *("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "SpaceToDepth"),
        *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    )
)
"""They move values about without changing them: the codes keep their scale."""
_CLIPS = ("Relu", "Clip")
"""What comes before one takes its range: the rounding clips as it does."""
_SETTINGS = {"Clip": (1, 2), "Conv": (2,), "ConvTranspose": (2,), "Pad": (2,), "Resize": (1, 2)}
"""Inputs of operators that must stay constants; a bias of a convolution has codes of its own."""
Ends = tuple[float, float]


def region_everywhere(graph: ir.Graph, layers: Sequence[Layer], bits: int) -> QdqRegion:
    """All float tensors of the graph, with its constants but for the weights of `layers`. `bits`: of their codes."""
    tensors: dict[str, str] = {}
    fixed = fixed_values(graph)
    for value in _floats(graph):
        name, producer = name_of(value), value.producer()
        if name in fixed:
            continue
        moved = producer is not None and producer.op_type in _MOVES and name_of(producer.inputs[0]) in tensors
        tensors[name] = tensors[name_of(producer.inputs[0])] if producer is not None and moved else name
    for node in graph:
        if node.op_type in _CLIPS and len(node.inputs[0].uses()) == 1 and name_of(node.inputs[0]) in tensors:  # type: ignore[union-attr]
            tensors[name_of(node.inputs[0])] = tensors[name_of(node.outputs[0])]
    weights = {layer.weight_name for layer in layers}
    return QdqRegion(
        tuple(layer for layer in layers if layer.op == "conv"),
        tensors,
        constants={name: ends for name, ends in _constants(graph) if name not in weights},
        saturating={
            name_of(node.outputs[0]): _SATURATING[node.op_type](bits) for node in graph if node.op_type in _SATURATING
        },
    )


_SATURATING: dict[str, Callable[[int], Ends]] = {
    "Sigmoid": lambda bits: (0.0, 1 - 2.0**-bits),
    "Tanh": lambda bits: (-1.0, 1 - 2.0 ** (1 - bits)),
}
"""Operators that the HTP computes with one scale alone, a power of two: with another, a Sigmoid of 16 bits was off by
0.026 (QNN 2.51)."""


def _floats(graph: ir.Graph) -> Iterator[ir.Value]:
    """Inputs and what operators give, in the order of execution."""
    values = (*graph.inputs, *(value for node in graph for value in node.outputs))
    return (value for value in values if value.dtype == ir.DataType.FLOAT)


def _constants(graph: ir.Graph) -> Iterator[tuple[str, Ends]]:
    """Float constants that operators compute with, with their ends."""
    settings = {
        node.inputs[place] for node in graph for place in _SETTINGS.get(node.op_type, ()) if place < len(node.inputs)
    }
    for name, value in graph.initializers.items():
        array = constant(value)
        if array is not None and array.dtype == np.float32 and array.size and value not in settings:
            yield name, (float(array.min()), float(array.max()))


def code_range(low: float, high: float) -> Ends:
    """The ends of what gets codes: a mask needs no more than `MASKED`. What is always 0, as a bias may be, gets codes
    up to 1: the HTP adds in the larger scale of two, in which nothing of the other would be left."""
    if low == high == 0:
        return 0.0, 1.0
    return (MASKED, max(high, 0.0)) if low < _MASK else (low, high)
