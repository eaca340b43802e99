"""A graph of attention over kept keys and values, as small as it can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

HEADS, GROUPS, LONGEST = 8, 2, 64


def attention(size: int = 16, packed: bool = False, turned: int = 16, **attributes: Any) -> ir.Model:
    """Tokens look up queries, keys and values, which attend. `turned`: channels of a head that positions turn."""
    generator = np.random.default_rng(0)
    widths = {"q": HEADS * size, "k": GROUPS * size, "v": GROUPS * size}
    tables = {name: generator.normal(0, 1, (50, width)).astype(np.float32) for name, width in widths.items()}
    if packed:
        tables = {"qkv": np.concatenate(list(tables.values()), axis=1)}
    constants = {f"{name}_table": array for name, array in tables.items()}
    nodes = [helper.make_node("Gather", [f"{name}_table", "input_ids"], [name]) for name in tables]
    inputs = [*tables, *([""] * (3 - len(tables))), "past.key", "past.value", "lengths", "total"]
    if turned:
        angles = np.arange(LONGEST)[:, None] / 100 ** (np.arange(0, turned, 2) / turned)
        constants |= {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}
        inputs, attributes = [*inputs, "cos", "sin"], {**attributes, "do_rotary": 1}
    constants |= {"one": np.array([1], np.int64), "axis": np.array([1], np.int64)}
    nodes += [
        helper.make_node("ReduceSum", ["attention_mask", "axis"], ["sums"], keepdims=0),
        helper.make_node("Sub", ["sums", "one"], ["last"]),
        helper.make_node("Cast", ["last"], ["lengths"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["all"], start=1),
        helper.make_node("Cast", ["all"], ["total"], to=TensorProto.INT32),
        helper.make_node(
            "GroupQueryAttention",
            inputs,
            ["logits", "key", "value"],
            name="attend",
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=GROUPS,
            **attributes,
        ),
    ]
    kept = ["batch", GROUPS, "past", size]
    ends = [
        *((name, TensorProto.INT64, ["batch", size]) for name, size in (("input_ids", "new"), ("attention_mask", "n"))),
        *((name, TensorProto.FLOAT, kept) for name in ("past.key", "past.value")),
    ]
    results = [("logits", TensorProto.FLOAT, ["batch", "new", HEADS * size])]
    results += [(name, TensorProto.FLOAT, ["batch", GROUPS, "n", size]) for name in ("key", "value")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*entry) for entry in ends],
        [helper.make_tensor_value_info(*entry) for entry in results],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))
