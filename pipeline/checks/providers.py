"""Which operators of a graph an execution provider takes, as its documentation lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from onnx import ModelProto, NodeProto

from pipeline.checks.weights import Graph
from pipeline.core.types import StrictModel
from pipeline.core.untrusted import read_toml

_FILE = Path(__file__).with_name("providers.toml")
_STANDARD = ("", "ai.onnx")
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


class ProviderCoverage(StrictModel):
    """What one provider takes of a graph. `parts`: pieces that it runs, with the CPU's between them; `left`: operators
    that stay on the CPU, with how many; `weights`: the share of weight values whose operators it takes."""

    provider: str
    title: str
    nodes: int
    taken: int
    parts: int
    weights: float
    left: dict[str, int]
    needs: str
    source: str


@cache
def providers() -> tuple[Provider, ...]:
    data = read_toml(_FILE)
    return tuple(Provider.from_data({"name": name, **_split(table)}, _FILE.name) for name, table in data.items())


def _split(table: dict[str, object]) -> dict[str, object]:
    lists: dict[str, object] = {
        key: frozenset(str(table[key]).split()) for key in ("operators", "quantized") if key in table
    }
    return {**table, **lists}


def provider_coverage(models: Sequence[ModelProto]) -> tuple[ProviderCoverage, ...]:
    """Of all providers, over all graphs together. Operators in bodies of control flow stay where it does; limits on
    attributes and types are not looked at: a provider may take less."""
    graphs = [Graph(model) for model in models]
    return tuple(_coverage(provider, graphs) for provider in providers())


def _coverage(provider: Provider, graphs: Sequence[Graph]) -> ProviderCoverage:
    left: Counter[str] = Counter()
    nodes = parts = held = all_held = 0
    for graph in graphs:
        codes = {name for node in graph.model.graph.node if _is_rounding(node) for name in node.output}
        before = False
        for node in graph.model.graph.node:
            if node.op_type == "Constant":
                continue
            taken = _takes(provider, node, codes)
            values = sum(weight.values for weight in graph.weights_of(node))
            nodes, parts = nodes + 1, parts + (taken and not before)
            held, all_held = held + taken * values, all_held + values
            left[node.op_type] += not taken
            before = taken
    return ProviderCoverage(
        provider=provider.name,
        title=provider.title,
        nodes=nodes,
        taken=nodes - left.total(),
        parts=parts,
        weights=held / all_held if all_held else 0.0,
        left={name: count for name, count in left.most_common() if count},
        needs=_needs(provider, graphs),
        source=provider.source,
    )


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
