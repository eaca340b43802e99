"""Which operators of a graph an execution provider takes, as its documentation lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto

from pipeline.checks.typed_values import Shape, Value, products, typed_values
from pipeline.checks.weights import Graph
from pipeline.core.report_types import ProviderCoverage
from pipeline.core.types import Json, StrictModel
from pipeline.core.untrusted import read_toml

QNN = "qnn"
_FILE = Path(__file__).with_name("providers.toml")
_STANDARD = ("", "ai.onnx")
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")


class Provider(StrictModel):
    """See `providers.toml`."""

    name: str
    title: str
    source: str
    operators: frozenset[str]
    quantized: frozenset[str] | None = None
    needs: str = ""
    fixed_shapes: bool = False
    floats: frozenset[int]
    codes: frozenset[int]


@cache
def providers() -> tuple[Provider, ...]:
    data = read_toml(_FILE)
    return tuple(Provider.from_data({"name": name, **_split(table)}, _FILE.name) for name, table in data.items())


def _split(table: dict[str, object]) -> dict[str, object]:
    lists: dict[str, object] = {
        key: frozenset(str(table[key]).split()) for key in ("operators", "quantized") if key in table
    }
    types: dict[str, object] = {
        key: frozenset(TensorProto.DataType.Value(name.upper()) for name in str(table[key]).split())
        for key in ("floats", "codes")
    }
    return {**table, **lists, **types}


def provider_coverage(models: Sequence[ModelProto], shapes: Mapping[str, Shape]) -> tuple[ProviderCoverage, ...]:
    """Of all providers, over all graphs together, for values of these shapes by name. Operators in bodies of control
    flow stay where it does; limits on attributes are not looked at: a provider may take less."""
    graphs = [(Graph(model), typed_values(model, shapes)) for model in models]
    return tuple(_coverage(provider, graphs) for provider in providers())


@dataclass
class _Sums:
    """What was counted so far; `held` and `products` beside what all nodes have."""

    nodes: int = 0
    parts: int = 0
    held: list[float] = field(default_factory=lambda: [0, 0])
    products: list[float] = field(default_factory=lambda: [0, 0])
    crossing: float = 0.0
    left: Counter[str] = field(default_factory=Counter)

    def told(self) -> dict[str, Json]:
        """As a `ProviderCoverage` has it."""
        return {
            "nodes": self.nodes,
            "taken": self.nodes - self.left.total(),
            "parts": self.parts,
            "weights": _share(self.held),
            "products": _share(self.products) if self.products[1] else None,
            "crossing_mb": self.crossing,
            "left": {name: count for name, count in self.left.most_common() if count},
        }


def compiled_coverage(
    listed: ProviderCoverage, model: ModelProto, left: Collection[str], parts: int, compiled: str
) -> ProviderCoverage:
    """What a provider took that has compiled `model`, whose shapes are fixed, beside what it lists. `left`: the names
    of the nodes that stayed; `compiled`: by what, for what."""
    graph, sums = Graph(model), _Sums()
    nodes = _nodes(graph)
    _count(graph, nodes, [node.name not in left for node in nodes], typed_values(model, {}), sums)
    sums.parts = parts
    return listed.model_copy(update={**sums.told(), "compiled": compiled, "needs": ""})


def _coverage(provider: Provider, graphs: Sequence[tuple[Graph, Mapping[str, Value]]]) -> ProviderCoverage:
    sums = _Sums()
    for graph, values in graphs:
        nodes = _nodes(graph)
        codes = {name for node in nodes if _is_rounding(node) for name in node.output}
        taken = [_takes(provider, node, codes) and _takes_types(provider, node, values) for node in nodes]
        _count(graph, nodes, taken, values, sums)
    needs = _needs(provider, [graph for graph, _ in graphs])
    named = {"provider": provider.name, "title": provider.title, "source": provider.source}
    return ProviderCoverage.model_validate({**named, "needs": needs, **sums.told()})


def _nodes(graph: Graph) -> list[NodeProto]:
    return [node for node in graph.model.graph.node if node.op_type != "Constant"]


def _count(
    graph: Graph, nodes: Sequence[NodeProto], taken: Sequence[bool], values: Mapping[str, Value], sums: _Sums
) -> None:
    for node, takes, before in zip(nodes, taken, [False, *taken], strict=False):
        weights = graph.weights_of(node)
        sums.nodes, sums.parts = sums.nodes + 1, sums.parts + (takes and not before)
        sums.left[node.op_type] += not takes
        for total, count in (
            (sums.held, sum(weight.values for weight in weights)),
            (sums.products, products(node, values, weights)),
        ):
            total[0], total[1] = total[0] + takes * count, total[1] + count
    sums.crossing += _crossing(nodes, taken, values)


def _crossing(nodes: Sequence[NodeProto], taken: Sequence[bool], values: Mapping[str, Value]) -> float:
    """MB of what operators give that others on the other side read."""
    made = {name: takes for node, takes in zip(nodes, taken, strict=True) for name in node.output}
    crossed = {
        name for node, takes in zip(nodes, taken, strict=True) for name in node.input if made.get(name, takes) != takes
    }
    return sum(values[name].megabytes for name in crossed if name in values)


def _share(of: Sequence[float]) -> float:
    return of[0] / of[1] if of[1] else 0.0


def _is_rounding(node: NodeProto) -> bool:
    return node.op_type in _ROUNDING


def _takes(provider: Provider, node: NodeProto, codes: set[str]) -> bool:
    """Whether the provider lists the operator; between roundings, whether it runs on codes there, with them."""
    if provider.quantized is not None:
        if _is_rounding(node):
            return bool(provider.quantized)
        if any(name in codes for name in node.input):
            return node.op_type in provider.quantized
    name = node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"
    return name in provider.operators


def _takes_types(provider: Provider, node: NodeProto, values: Mapping[str, Value]) -> bool:
    """Whether it has kernels for the floats, and for the codes, that the operator reads and gives."""
    floats = {values[name].dtype for name in (*node.input, *node.output) if name in values}
    if not floats & _FLOATS <= provider.floats:
        return False
    return not _is_rounding(node) or len(node.input) < 3 or _code(node, values) in {*provider.codes, None}


def _code(node: NodeProto, values: Mapping[str, Value]) -> int | None:
    """The type of the codes of a rounding; None where it cannot be told."""
    zero = values.get(node.input[2])
    return None if zero is None else zero.dtype


def _needs(provider: Provider, graphs: Sequence[Graph]) -> str:
    """What the graphs lack of what it needs."""
    dynamic = any(_is_dynamic(graph.model) for graph in graphs)
    rounded = any(_is_rounding(node) for graph in graphs for node in graph.model.graph.node)
    if provider.fixed_shapes:
        return provider.needs if dynamic else ""
    return provider.needs if rounded else ""


def _is_dynamic(model: ModelProto) -> bool:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    return any(not axis.HasField("dim_value") for value in inputs for axis in value.type.tensor_type.shape.dim)
