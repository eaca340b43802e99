"""Keys and values of a language model's past in fewer bits, in the graph: inputs and outputs of int8 or float16.

ONNX Runtime's attention over such a cache reads single tokens as fast as over floats, and prompts several times slower
(docs/language-models.md has figures). Each attention therefore becomes a branch: one token runs the operator on what is
stored; several are rounded as they are stored, and attended to in float. Both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from pipeline.core.errors import StageError
from pipeline.graph.edit import CONTRIB, add_constant, constant, emit, name_of, replace_all
from pipeline.numerics.affine import Float
from pipeline.numerics.cache_scales import scales
from pipeline.quantize.cache import attentions
from pipeline.trace.pack_attention import ATTENTION

_QUERY, _KEY, _VALUE, _PAST_KEY, _PAST_VALUE, _LENGTHS, _TOTAL, _COSINES, _SINES = range(9)
_KEY_SCALES = 12
_ROTARY = ("do_rotary", "rotary_interleaved")
_END = 2**62


def store_cache(model: ir.Model, bits: int, magnitudes: Mapping[str, Float]) -> None:
    """In place: keys and values in 8 or 16 bits. `magnitudes`: for 8, of each output with keys or values the largest
    magnitude of every channel, float32 [heads, size]. StageError if no node attends to kept ones."""
    graph = model.graph
    nodes = attentions(graph)
    if not nodes:
        raise StageError("The graph has no attention over kept keys and values, which could be stored in fewer bits.")
    step = _step(graph)
    for node in nodes:
        code = _Int8(graph, node, magnitudes) if bits == 8 else _Float16(graph, node)
        _branch(graph, node, step, code)
    model.opset_imports[CONTRIB] = 1


@dataclass(frozen=True)
class _Step:
    """Of one run, int64 [1] each: texts, new tokens, tokens before them, and all. `several`: whether new ones are more
    than one, bool [1]."""

    batch: ir.Value
    tokens: ir.Value
    before: ir.Value
    total: ir.Value
    several: ir.Value


def _step(graph: ir.Graph) -> _Step:
    inputs = {name_of(value): value for value in graph.inputs}
    ids, mask, first = inputs["input_ids"], inputs["attention_mask"], graph[0]

    def size(value: ir.Value, axis: int, name: str) -> ir.Value:
        return emit(first, "Shape", [value], [f"cache/{name}"], start=axis, end=axis + 1)[0]

    batch, tokens, total = size(ids, 0, "batch"), size(ids, 1, "tokens"), size(mask, 1, "total")
    (before,) = emit(first, "Sub", [total, tokens], ["cache/before"])
    (several,) = emit(first, "Greater", [tokens, _integers(graph, "one", [1])], ["cache/several"])
    return _Step(batch, tokens, before, total, several)


def _integers(graph: ir.Graph, name: str, values: Sequence[int]) -> ir.Value:
    return add_constant(graph, f"cache/{name}", np.array(values, np.int64))


class _Body:
    """Nodes of a branch, and their names."""

    def __init__(self, name: str) -> None:
        self.name, self.nodes = name, list[ir.Node]()

    def add(
        self, op_type: str, inputs: Sequence[ir.Value | None], outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[ir.Value]:
        name = f"{self.name}/{op_type}_{len(self.nodes)}"
        node = ir.node(op_type, inputs, attributes=attributes or None, domain=domain, num_outputs=outputs, name=name)
        for place, value in enumerate(node.outputs):
            value.name = f"{name}/{place}"
        self.nodes.append(node)
        return list(node.outputs)

    def one(self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        return self.add(op_type, inputs, 1, domain, **attributes)[0]

    def graph(self, results: Sequence[tuple[ir.Value, ir.DataType]]) -> ir.Graph:
        for value, dtype in results:
            value.dtype = dtype
        return ir.Graph([], [value for value, _ in results], nodes=self.nodes, name=self.name)


class _Code(Protocol):
    """How keys and values are stored. `side`: 0 for keys, 1 for values."""

    dtype: ir.DataType

    def store(self, body: _Body, states: ir.Value, side: int) -> ir.Value:
        """Float [batch, tokens, heads x size] -> as stored."""

    def read(self, body: _Body, stored: ir.Value, side: int) -> ir.Value:
        """The floats that [batch, tokens, heads x size] stand for."""

    def read_past(self, body: _Body, stored: ir.Value, side: int) -> ir.Value:
        """The floats that [batch, heads, tokens, size] stand for."""

    def attend(self, body: _Body, node: ir.Node) -> list[ir.Value]:
        """What `node` gives over what is stored: float, keys, values."""


class _Int8:
    """Codes of -128 to 127 by a scale for each channel of each head."""

    dtype = ir.DataType.INT8

    def __init__(self, graph: ir.Graph, node: ir.Node, magnitudes: Mapping[str, Float]) -> None:
        names = [name_of(value) for value in node.outputs[1:]]
        arrays = [scales(magnitudes[name]) for name in names]
        self._flat = [
            add_constant(graph, f"{name}.scale", array.reshape(-1)) for name, array in zip(names, arrays, strict=True)
        ]
        self._by_head = [
            add_constant(graph, f"{name}.scale_by_head", array[None, :, None, :])
            for name, array in zip(names, arrays, strict=True)
        ]
        self._unit = add_constant(graph, "cache/unit_scale", np.array(1, np.float32))
        self._zero = add_constant(graph, "cache/zero_point", np.array(0, np.int8))

    def store(self, body: _Body, states: ir.Value, side: int) -> ir.Value:
        """Division and rounding apart: QuantizeLinear with a scale for each channel takes them one value at a time."""
        return body.one("QuantizeLinear", body.one("Div", states, self._flat[side]), self._unit, self._zero)

    def read(self, body: _Body, stored: ir.Value, side: int) -> ir.Value:
        return body.one("Mul", body.one("Cast", stored, to=ir.DataType.FLOAT), self._flat[side])

    def read_past(self, body: _Body, stored: ir.Value, side: int) -> ir.Value:
        return body.one("Mul", body.one("Cast", stored, to=ir.DataType.FLOAT), self._by_head[side])

    def attend(self, body: _Body, node: ir.Node) -> list[ir.Value]:
        inputs = [*node.inputs, *[None] * (_KEY_SCALES - len(node.inputs)), *self._flat]
        kind = "PER_CHANNEL"
        attributes = {**_attributes(node), "k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": 8}
        return body.add(ATTENTION, inputs, 3, CONTRIB, **attributes)


class _Float16:
    """Halves. The operator computes in them too."""

    dtype = ir.DataType.FLOAT16

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        tables = [(value, constant(value)) for value in node.inputs[_COSINES:]]
        self._tables = [
            add_constant(graph, f"{name_of(value)}.float16", array.astype(np.float16))
            for value, array in tables
            if array is not None
        ]

    def store(self, body: _Body, states: ir.Value, side: int) -> ir.Value:  # noqa: ARG002  # both are stored alike
        return body.one("Cast", states, to=ir.DataType.FLOAT16)

    def read(self, body: _Body, stored: ir.Value, side: int) -> ir.Value:  # noqa: ARG002  # as above
        return body.one("Cast", stored, to=ir.DataType.FLOAT)

    read_past = read

    def attend(self, body: _Body, node: ir.Node) -> list[ir.Value]:
        halves = [None if value is None else self.store(body, value, 0) for value in node.inputs[:_PAST_KEY]]
        inputs = [*halves, *node.inputs[_PAST_KEY:_COSINES], *self._tables]
        output, *states = body.add(ATTENTION, inputs, 3, CONTRIB, **_attributes(node))
        return [self.read(body, output, 0), *states]


def _attributes(node: ir.Node, without: Sequence[str] = ()) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items() if name not in without}


def _branch(graph: ir.Graph, node: ir.Node, step: _Step, code: _Code) -> None:
    """The branch in the place of an attention."""
    kinds = [ir.DataType.FLOAT, code.dtype, code.dtype]
    name, past = str(node.name), node.inputs[_PAST_KEY : _PAST_VALUE + 1]
    prompt, single = _Body(f"{name}/prompt"), _Body(f"{name}/token")
    many = _attend_in_float(graph, prompt, node, step, code)
    one = code.attend(single, node)
    branches: dict[str, Any] = {
        "then_branch": prompt.graph(list(zip(many, kinds, strict=True))),
        "else_branch": single.graph(list(zip(one, kinds, strict=True))),
    }
    outputs = [f"{name}/{place}" for place in ("output", "keys", "values")]
    values = emit(node, "If", [step.several], outputs, **branches)
    replace_all(node, values)
    for value in (*values[1:], *past):
        assert value is not None  # noqa: S101  # every attention has a past
        value.dtype = code.dtype


def _attend_in_float(graph: ir.Graph, body: _Body, node: ir.Node, step: _Step, code: _Code) -> list[ir.Value]:
    """Of several new tokens: what they attend to in float is what is stored of it."""
    past = node.inputs[_PAST_KEY : _PAST_VALUE + 1]
    assert past[0] is not None and past[0].shape is not None  # noqa: S101  # inputs of the graph
    heads, size = (int(past[0].shape[axis]) for axis in (1, 3))  # type: ignore[arg-type]  # fixed by the model
    queries, *new = _sides(graph, body, node, heads, size)
    if node.attributes.get_int("do_rotary", 0):
        queries, new[0] = _turned(graph, body, node, step, [queries, new[0]])
    read: list[ir.Value] = []
    before: list[ir.Value] = []
    present: list[ir.Value] = []
    for side, (states, kept) in enumerate(zip(new, past, strict=True)):
        assert kept is not None  # noqa: S101  # as above
        stored = code.store(body, states, side)
        read.append(code.read(body, stored, side))
        zero, axis, end = (_integers(graph, *each) for each in (("zero", [0]), ("axis", [2]), ("end", [_END])))
        own = body.one("Slice", kept, zero, step.before, axis)
        before.append(code.read_past(body, own, side))
        by_head = body.one("Reshape", stored, _integers(graph, f"by_head_{heads}_{size}", [0, 0, heads, size]))
        moved = body.one("Transpose", by_head, perm=[0, 2, 1, 3])
        spare = body.one("Slice", kept, step.total, end, axis)  # of a buffer that past and present share
        present.append(body.one("Concat", own, moved, spare, axis=2))
    inputs = [queries, *read, *before, *node.inputs[_LENGTHS : _TOTAL + 1]]
    output, _, _ = body.add(ATTENTION, inputs, 3, CONTRIB, **_attributes(node, _ROTARY))
    return [output, *present]


def _sides(graph: ir.Graph, body: _Body, node: ir.Node, heads: int, size: int) -> list[ir.Value]:
    """Queries, keys and values, which may be one product."""
    given = node.inputs[_QUERY : _VALUE + 1]
    found = [value for value in given if value is not None]
    if len(found) == len(given):
        return found
    width = node.attributes.get_int("num_heads", 0) * size
    sizes = _integers(graph, f"sides_{width}_{heads * size}", [width, heads * size, heads * size])
    return body.add("Split", [found[0], sizes], 3, axis=2)


def _turned(
    graph: ir.Graph, body: _Body, node: ir.Node, step: _Step, states: Sequence[ir.Value]
) -> tuple[ir.Value, ir.Value]:
    """Queries and keys turned by the positions of new tokens, as the operator turns them."""
    one, zero = _integers(graph, "one", [1]), _integers(graph, "zero", [0])
    ends = [body.one("Squeeze", value) for value in (step.before, step.total, one)]
    row = body.one("Unsqueeze", body.one("Range", *ends), zero)
    places = body.one("Expand", row, body.one("Concat", step.batch, one, axis=0))
    tables = list(node.inputs[_COSINES : _SINES + 1])
    heads = [node.attributes.get_int(name, 0) for name in ("num_heads", "kv_num_heads")]
    interleaved = node.attributes.get_int("rotary_interleaved", 0)
    shared = {"interleaved": interleaved, "rotary_embedding_dim": 2 * _pairs(tables[0])}
    (queries,), (keys,) = (
        body.add("RotaryEmbedding", [value, places, *tables], 1, CONTRIB, num_heads=count, **shared)
        for value, count in zip(states, heads, strict=True)
    )
    return queries, keys


def _pairs(table: ir.Value | None) -> int:
    """Pairs of channels that a table of cosines [positions, pairs] turns."""
    found = constant(table)
    assert found is not None  # noqa: S101  # it is written as a constant
    return int(found.shape[1])
