"""Which nodes of a float graph a scheme can take: products with constant weights, and embedding tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.formats.format import Layer
from pipeline.formats.scheme import check_overrides
from pipeline.graph.edit import constant

SMALL = 4096
"""Values. Below it, scales and extra nodes cost more than rounding saves."""

_WEIGHTED = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Gather", "LSTM", "GRU", "RNN", "Einsum")


@dataclass(frozen=True)
class LeftInFloat:
    """A weight that stays in float, and why."""

    weight_name: str
    op_type: str
    bytes: int
    reason: str


def find_layers(
    graph: ir.Graph, exclude: Sequence[str], overridden: Sequence[str] = ()
) -> tuple[list[Layer], list[LeftInFloat]]:
    """Split the weighted nodes into those that can be quantized and those that cannot.

    `exclude`: name patterns (`*`, `?`, `[...]`) of nodes to leave alone; `overridden`: those of a scheme's overrides.
    UsageError if one matches no node.
    """
    _check_patterns(graph, exclude)
    layers: list[Layer] = []
    left: list[LeftInFloat] = []
    weighted: list[str] = []
    for node in graph:
        for position, value in enumerate(node.inputs):
            weight = constant(value)
            if node.op_type not in _WEIGHTED or weight is None or weight.ndim < 2 or weight.dtype != np.float32:
                continue
            assert value is not None  # noqa: S101  # it has a constant
            weighted.append(str(node.name))
            reason = _reason(node, position, weight, exclude)
            if reason:
                left.append(LeftInFloat(str(value.name), node.op_type, weight.nbytes, reason))
            else:
                layers.append(_layer(node, str(value.name), weight))
    check_overrides(overridden, weighted)
    return layers, [*left, *_in_bodies(graph)]


def _in_bodies(graph: ir.Graph) -> Iterator[LeftInFloat]:
    """The weights that branches and loops read."""
    for outer in graph:
        for body in (body for attribute in outer.attributes.values() for body in _graphs_of(attribute)):
            for node in body.all_nodes():
                for value in node.inputs if node.op_type in _WEIGHTED else ():
                    weight = constant(value)
                    if value is not None and weight is not None and weight.ndim > 1 and weight.dtype == np.float32:
                        reason = f"it is read in the body of {outer.op_type}, where no scheme takes weights"
                        yield LeftInFloat(str(value.name), node.op_type, weight.nbytes, reason)


def _graphs_of(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.value]
    return attribute.value if attribute.type == ir.AttributeType.GRAPHS else ()


def _layer(node: ir.Node, name: str, weight: NDArray[Any]) -> Layer:
    if node.op_type == "Gather":
        return Layer("table", node, "", name, weight)
    activation = node.inputs[0]
    assert activation is not None  # noqa: S101  # MatMul and Conv have two inputs
    return Layer("conv" if node.op_type == "Conv" else "linear", node, str(activation.name), name, weight)


def _reason(node: ir.Node, position: int, weight: NDArray[Any], exclude: Sequence[str]) -> str:
    """Why this weight stays in float; empty if it need not."""
    if any(fnmatchcase(str(node.name), pattern) for pattern in exclude):
        return "excluded by name"
    if node.op_type == "Conv" and position == 1:
        return _conv_reason(node)
    return _product_reason(node, position, weight)


def _product_reason(node: ir.Node, position: int, weight: NDArray[Any]) -> str:
    if weight.size < SMALL:
        return f"only {weight.size} values: less than its scales and extra nodes would cost"
    taken = {"MatMul": 1, "Gather": 0}
    if taken.get(node.op_type) != position:
        return f"no scheme takes the weights of {node.op_type} yet"
    if weight.ndim != 2:
        return f"its weight has {weight.ndim} dimensions, 2 can be taken"
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) != 0:
        return "it gathers columns, not rows"
    return ""


def _conv_reason(node: ir.Node) -> str:
    """As `_reason`. A small one may be worth rounding between others, which `find_region` finds out."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return "its bias is computed, not constant" if bias is not None and constant(bias) is None else ""


def _check_patterns(graph: ir.Graph, exclude: Sequence[str]) -> None:
    names = [str(node.name) for node in graph]
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            shown = ", ".join(
                [name for name in names if any(kind in name for kind in ("MatMul", "Gather", "Conv"))][:3]
            )
            raise UsageError(
                f"--nodes-to-exclude {pattern!r} matches no node of the graph.",
                f"Names look like: {shown}. `edge inspect <bundle>` lists them; * matches anything.",
            )
