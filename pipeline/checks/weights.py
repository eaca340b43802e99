"""The weights of an ONNX graph: constants that are multiplied or looked up, and their stored bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper
from onnx.inliner import inline_local_functions

from pipeline.graph.dtypes import bits_of, holds_numbers, is_floating_point
from pipeline.graph.operators import (
    BLOCKS,
    CONTROL_FLOW,
    EXPERTS,
    MOVES,
    NO_WEIGHTS,
    TABLES,
    WEIGHT_INPUTS,
    is_standard,
)

SMALLEST = 64
"""Values of a constant that counts as a weight where an operator is not known to have one: fewer are settings."""

_UNCHANGED = {"DequantizeLinear", "Transpose", "Reshape", "Cast", "Identity", "Squeeze", "Unsqueeze", "Flatten"}
_FORGETS = CONTROL_FLOW | {"Shape", "Size", "ConstantOfShape", "Range", "NonZero", "EyeLike", "ArgMax", "ArgMin"}
"""What they make of a constant has none of its values."""


@dataclass(frozen=True)
class Weight:
    """One stored weight and the first operator that uses it. `bits` of a stored value; `dims` as stored. `body`: the
    control-flow operator in whose body that operator is, if it is in one. `tensor`: what it is stored in."""

    name: str
    op_type: str
    dims: tuple[int, ...]
    values: int
    bits: int
    body: str = ""
    tensor: TensorProto | None = field(default=None, compare=False, repr=False)

    @property
    def megabytes(self) -> float:
        return self.values * self.bits / 8 / 1e6


@dataclass(frozen=True)
class Constant:
    """A stored tensor: `key` tells apart those of one name in two branches."""

    key: tuple[int, str]
    name: str
    tensor: TensorProto


class _Scope:
    """The values of one graph that are constant; the bodies of control-flow nodes see those of the graphs around them
    too.

    `body`: the operator whose body it is. `passed`: inputs of a body -> what they are outside, in all iterations.
    """

    def __init__(
        self, graph: GraphProto, outer: _Scope | None = None, body: str = "", passed: dict[str, str] | None = None
    ) -> None:
        self.graph, self.outer, self.body, self.passed = graph, outer, body, passed or {}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.constants |= {sparse.values.name: _dense(sparse) for sparse in graph.sparse_initializer}
        self._made: dict[str, Constant | None] = {}
        self.nodes = tuple(graph.node)
        for node in self.nodes:  # in order of execution, so that what a node reads is settled
            tensor = _held(node) if node.op_type == "Constant" else None
            if tensor is not None:
                self.constants[node.output[0]] = tensor
            else:
                self._made |= dict.fromkeys(node.output, self._made_of(node))

    def behind(self, name: str) -> Constant | None:
        """The constant that `name` is, or is made of; None if it is none."""
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.constants:
                return Constant((id(scope), name), name, scope.constants[name])
            if name in scope._made:
                return scope._made[name]
            name, scope = scope.passed.get(name, name), scope.outer
        return None

    def _made_of(self, node: NodeProto) -> Constant | None:
        """The largest constant that `node` makes its output of, if it makes it of constants alone."""
        if not node.input or node.op_type in _FORGETS:
            return None
        if node.op_type in _UNCHANGED:
            return self.behind(node.input[0])
        found = [self.behind(name) for name in node.input if name]
        known = [constant for constant in found if constant is not None]
        if len(known) < len(found):
            return None
        return max(known, key=lambda constant: math.prod(constant.tensor.dims), default=None)


@dataclass(frozen=True)
class Graph:
    """A model's nodes and constants, its subgraphs' and local functions' included. The weights' bytes need not be
    loaded."""

    model: ModelProto

    @cached_property
    def _scopes(self) -> tuple[_Scope, ...]:
        model = inline_local_functions(self.model) if self.model.functions else self.model
        return tuple(_scopes(_Scope(model.graph)))

    @cached_property
    def _scope_of(self) -> dict[int, _Scope]:
        return {id(node): scope for scope in self._scopes for node in scope.nodes}

    @cached_property
    def nodes(self) -> tuple[NodeProto, ...]:
        """In order of execution: the bodies of a control-flow node come before it."""
        return tuple(_in_order(self._scopes[0], {id(scope.graph): scope for scope in self._scopes}))

    @cached_property
    def constants(self) -> tuple[tuple[str, TensorProto], ...]:
        """Every stored tensor with its name; two branches may each have one of the same name."""
        return tuple(item for scope in self._scopes for item in scope.constants.items())

    def constant_behind(self, name: str, node: NodeProto | None = None) -> Constant | None:
        """The constant that `name`, as `node` reads it, is: perhaps dequantized, cast, turned, or made of it and
        other constants; None if it is none. Without a node, in the graph that has such a value."""
        scopes = [self._scope_of[id(node)]] if node is not None else self._scopes
        return next((found for scope in scopes if (found := scope.behind(name)) is not None), None)

    def weights_of(self, node: NodeProto) -> list[Weight]:
        return [weight for _, weight in self._weights_of(node)]

    def _weights_of(self, node: NodeProto) -> list[tuple[Constant, Weight]]:
        names = [node.input[place] for place in _places(node) if place < len(node.input) and node.input[place]]
        found = [constant for name in names if (constant := self.constant_behind(name, node)) is not None]
        found += _in_attributes(node)
        body = self._scope_of[id(node)].body
        weights = ((constant, _weight(constant, node, body)) for constant in found)
        return [
            (constant, weight)
            for constant, weight in weights
            if weight is not None and not self._is_scales(node, weight)
        ]

    def _is_scales(self, node: NodeProto, weight: Weight) -> bool:
        """Whether it holds the scale of every row of a table of codes, which the same indices look up."""
        if node.op_type != "Gather" or weight.bits <= 8 or math.prod(weight.dims[1:]) != 1:
            return False
        return (node.input[1], weight.dims[0]) in self._rows_of_codes

    @cached_property
    def _rows_of_codes(self) -> set[tuple[str, int]]:
        """(indices, rows) of every table of codes."""
        tables = [node for node in self.nodes if node.op_type == "Gather"]
        behind = ((node, self.constant_behind(node.input[0], node)) for node in tables)
        return {
            (node.input[1], constant.tensor.dims[0])
            for node, constant in behind
            if constant is not None and constant.tensor.dims and _is_codes(constant.tensor)
        }

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """Every weight once: a tied one belongs to its first operator."""
        unique: dict[tuple[int, str], Weight] = {}
        for node in self.nodes:
            for constant, weight in self._weights_of(node):
                unique.setdefault(constant.key, weight)
        return tuple(unique.values())


def attribute(node: NodeProto, name: str, default: int) -> int:
    """The integer attribute `name`, or its default."""
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    return (item.g for item in node.attribute if item.type == AttributeProto.GRAPH)


def _scopes(scope: _Scope) -> Iterator[_Scope]:
    """`scope`, then those of the bodies in it."""
    yield scope
    for node in scope.nodes:
        for body in _bodies(node):
            yield from _scopes(_Scope(body, scope, node.op_type, _passed(node, body)))


def _in_order(scope: _Scope, scopes: dict[int, _Scope]) -> Iterator[NodeProto]:
    for node in scope.nodes:
        for body in _bodies(node):
            yield from _in_order(scopes[id(body)], scopes)
        yield node


def _passed(node: NodeProto, body: GraphProto) -> dict[str, str]:
    """Inputs of a body that no iteration changes, and what they are outside: what Scan cuts into slices, and the
    state of a Loop or Scan that goes out as it came in."""
    names = [value.name for value in body.input]
    if node.op_type == "Scan":
        states = len(names) - attribute(node, "num_scan_inputs", 0)
        sliced = dict(zip(names[states:], node.input[states:], strict=False))
        return sliced | _kept(body, names[:states], list(node.input[:states]), 0)
    return _kept(body, names[2:], list(node.input[2:]), 1) if node.op_type == "Loop" else {}


def _kept(body: GraphProto, names: list[str], outside: list[str], first: int) -> dict[str, str]:
    copies = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity"}
    results = [copies.get(value.name, value.name) for value in body.output[first:]]
    triples = zip(names, outside, results, strict=False)
    return {name: there for name, there, result in triples if name == result}


def _held(node: NodeProto) -> TensorProto | None:
    """What a Constant node holds; None of strings."""
    item = node.attribute[0]
    name = node.output[0]
    if item.name == "value":
        return item.t
    if item.name == "sparse_value":
        return _dense(item.sparse_tensor)
    numbers = {"value_float": [item.f], "value_floats": item.floats, "value_int": [item.i], "value_ints": item.ints}
    if item.name not in numbers:
        return None
    kind = TensorProto.FLOAT if "float" in item.name else TensorProto.INT64
    dims = [len(numbers[item.name])] if item.name.endswith("s") else []
    return helper.make_tensor(name, kind, dims, numbers[item.name])


def _dense(sparse: SparseTensorProto) -> TensorProto:
    """Type and dims of what a sparse tensor stands for: ONNX Runtime makes it dense."""
    return TensorProto(name=sparse.values.name, data_type=sparse.values.data_type, dims=sparse.dims)


def _in_attributes(node: NodeProto) -> list[Constant]:
    """Numbers that an operator which no table knows holds in its attributes."""
    if is_standard(node) and (node.op_type in WEIGHT_INPUTS or node.op_type in NO_WEIGHTS | MOVES | CONTROL_FLOW):
        return []
    found = []
    for item in node.attribute:
        name = f"{node.name or node.output[0]}.{item.name}"
        if item.type == AttributeProto.FLOATS:
            found.append((name, TensorProto(data_type=TensorProto.FLOAT, dims=[len(item.floats)])))
        elif item.type == AttributeProto.TENSOR:
            found.append((name, item.t))
    return [Constant((id(node), name), name, tensor) for name, tensor in found]


def _places(node: NodeProto) -> tuple[int, ...]:
    """The inputs that may be weights: of an operator that no table knows, all."""
    if is_standard(node):
        if node.op_type in WEIGHT_INPUTS:
            return WEIGHT_INPUTS[node.op_type]
        if node.op_type in NO_WEIGHTS or node.op_type in CONTROL_FLOW:
            return ()
    return tuple(range(len(node.input)))


def _weight(constant: Constant, node: NodeProto, body: str) -> Weight | None:
    """The constant as a weight; None for indices, masks and settings."""
    dims, name = tuple(constant.tensor.dims), constant.name
    if not holds_numbers(constant.tensor.data_type) or not _counts(node, constant.tensor, dims):
        return None
    values, bits = _packed(node, dims, bits_of(constant.tensor.data_type))
    return Weight(name, node.op_type, dims, values, bits, body, constant.tensor)


def _counts(node: NodeProto, tensor: TensorProto, dims: tuple[int, ...]) -> bool:
    """Products take any constant. Tables are no vectors of less than `SMALLEST` values and no indices; where values are
    moved, a matrix counts; elsewhere, what is no setting."""
    known = is_standard(node)
    if known and node.op_type in WEIGHT_INPUTS and node.op_type not in TABLES:
        return tensor.data_type not in (TensorProto.INT64, TensorProto.UINT64)  # sizes, not weights
    if not (is_floating_point(tensor.data_type) or _is_codes(tensor)):
        return False
    if known and node.op_type in TABLES:
        return sum(size > 1 for size in dims) > 1 or math.prod(dims) >= SMALLEST
    if known and node.op_type in MOVES and sum(size > 1 for size in dims) < 2:
        return False
    return math.prod(dims) >= SMALLEST


def _is_codes(tensor: TensorProto) -> bool:
    kind = tensor.data_type
    return holds_numbers(kind) and not is_floating_point(kind) and bits_of(kind) <= 8


def _packed(node: NodeProto, dims: tuple[int, ...], bits: int) -> tuple[int, int]:
    """(values, bits of each): some operators store several codes in one uint8."""
    if node.op_type in BLOCKS:
        default = 4
        return attribute(node, "N", 0) * attribute(node, "K", 0), attribute(node, "bits", default)
    code_bits = {
        "GatherBlockQuantized": attribute(node, "bits", 4),
        "QMoE": attribute(node, "expert_weight_bits", 4),
    }.get(node.op_type, bits)
    if bits == 8 and code_bits < 8 and (node.op_type in EXPERTS or node.op_type in TABLES):
        return math.prod(dims) * 8 // code_bits, code_bits
    return math.prod(dims), bits
