"""How many values the integer inputs of a graph may have, as the tables that they look up say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from pipeline.core.model_spec import InputSpec

_PASSING = (
    *("Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Transpose", "Slice", "Expand", "Tile"),
    *("Clip", "Concat", "Split", "Gather"),
)
"""Operators that move values without changing them; of a Gather, the table that is looked up is not followed."""


def with_ranges(model: ModelProto, specs: Mapping[str, InputSpec]) -> dict[str, InputSpec]:
    """The inputs, an integer one with the rows of the smallest table that it is an index into (Gather, OneHot); of
    bytes without one, all that a byte holds."""
    uses: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            uses[name].append(node)
    known = _Constants(model)
    return {
        name: spec.model_copy(update={"values": _values(name, spec, uses, known)})
        if spec.dtype not in ("bool", "float16", "float32", "float64")
        else spec
        for name, spec in specs.items()
    }


class _Constants:
    """Sizes of stored tensors, and the values of the small ones."""

    def __init__(self, model: ModelProto) -> None:
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                stored[node.output[0]] = node.attribute[0].t
        self._stored: dict[str, TensorProto] = stored

    def rows(self, name: str, axis: int) -> int | None:
        dims = list(self._stored[name].dims) if name in self._stored else []
        return dims[axis] if -len(dims) <= axis < len(dims) else None

    def number(self, name: str) -> int | None:
        tensor = self._stored.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or list(tensor.dims) not in ([], [1]):
            return None
        return int(numpy_helper.to_array(tensor).reshape(-1)[0])


def _values(name: str, spec: InputSpec, uses: Mapping[str, list[NodeProto]], known: _Constants) -> int:
    found, seen, waiting = [], {name}, [name]
    while waiting:
        value = waiting.pop()
        for node in uses[value]:
            size = _table(node, value, known)
            found += [size] if size else []
            moved = size is None and node.op_type in _PASSING and value == node.input[0]
            following = [output for output in node.output if moved and output not in seen]
            seen.update(following)
            waiting += following
    largest = {"uint8": 256, "int8": 128}.get(spec.dtype)
    return max(1, min([size for size in (*found, largest) if size] or [spec.values]))


def _table(node: NodeProto, value: str, known: _Constants) -> int | None:
    """The rows of what the node looks up by `value`; None if it does not."""
    if len(node.input) < 2:
        return None
    if node.op_type == "Gather" and node.input[1] == value:
        axis = next((onnx.helper.get_attribute_value(item) for item in node.attribute if item.name == "axis"), 0)
        return known.rows(node.input[0], axis)
    return known.number(node.input[1]) if node.op_type == "OneHot" and node.input[0] == value else None
