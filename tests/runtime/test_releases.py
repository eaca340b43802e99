"""Which ONNX Runtime a graph needs, and which opset one knows."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from pipeline.runtime.releases import newest_opset, parse_release, requirements


def model(opset: int, *operators: tuple[str, str], ir_version: int = 9) -> ir.Model:
    """x -> the operators one after the other -> y; names and domains."""
    names = ["x", *(f"v{number}" for number in range(1, len(operators))), "y"]
    nodes = [
        helper.make_node(name, [taken], [given], domain=domain)
        for (name, domain), taken, given in zip(operators, names[:-1], names[1:], strict=True)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    imports = [helper.make_opsetid(domain, opset if not domain else 1) for domain in ("", "com.microsoft")]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=ir_version))


@pytest.mark.parametrize(
    ("made", "release", "reason"),
    [
        (model(17, ("Relu", "")), "1.16", "the oldest that was tried"),
        (model(20, ("Relu", "")), "1.17", "opset 20"),
        (model(20, ("Gelu", "")), "1.18", "Gelu of opset 20"),
        (model(21, ("Relu", ""), ir_version=10), "1.18", "opset 21, format version 10"),
        (model(23, ("Relu", "")), "1.23", "opset 23"),
        (model(23, ("QuantizeLinear", "")), "1.24", "QuantizeLinear of opset 23"),
        (model(22, ("QuantizeLinear", "")), "1.21", "opset 22"),
        (model(21, ("GatherBlockQuantized", "com.microsoft")), "1.20", "GatherBlockQuantized"),
        (model(21, ("Relu", ""), ir_version=99), "1.33", "format version 99"),
    ],
)
def test_the_newest_thing_decides(made: ir.Model, release: str, reason: str) -> None:
    needed = requirements([made])
    assert (needed.onnxruntime, needed.reason) == (release, reason)


@pytest.mark.parametrize(
    ("name", "attributes", "release"),
    [
        ("MatMulNBits", {"bits": 4}, "1.18"),
        ("MatMulNBits", {"bits": 8, "accuracy_level": 4}, "1.22"),
        ("MatMulNBits", {"bits": 8}, "1.23"),
        ("MatMulNBits", {"bits": 2}, "1.24"),
        ("GatherBlockQuantized", {"bits": 4}, "1.23"),
        ("GatherBlockQuantized", {}, "1.20"),
        ("GroupQueryAttention", {}, "1.18"),
        ("GroupQueryAttention", {"kv_cache_bit_width": 8}, "1.27"),
    ],
)
def test_settings_of_operators(name: str, attributes: dict[str, int], release: str) -> None:
    made = model(21, (name, "com.microsoft"))
    made.graph.node(0).attributes.update({key: ir.AttrInt64(key, value) for key, value in attributes.items()})
    assert requirements([made]).onnxruntime == release


def test_of_several_graphs_all_must_load() -> None:
    needed = requirements([model(21, ("Relu", "")), model(17, ("Gelu", "com.microsoft"), ("Tanh", ""), ir_version=10)])
    assert (needed.onnxruntime, needed.ir_version) == ("1.18", 10)
    assert needed.opsets == {"ai.onnx": 21, "com.microsoft": 1}
    assert needed.operators == {"ai.onnx": ("Relu", "Tanh"), "com.microsoft": ("Gelu",)}


@pytest.mark.parametrize(
    ("release", "opset"),
    [("1.17", 20), ("1.18", 21), ("1.20.1", 21), ("1.22", 22), ("1.23.2", 22), ("1.24", 25), ("1.15", 0)],
)
def test_newest_opset_that_can_round_activations(release: str, opset: int) -> None:
    assert newest_opset(parse_release(release)) == opset
