"""Odd ONNX files: one thing changed in a valid one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

Change = Callable[[ModelProto, Random], None]
_WORDS = ("", "x", "y", "[red]x[/red]", "\x1b[2J", "\u202e", "a/b", "../../x", "/x", "\n", "a" * 10000, "é")


def _no_opset(model: ModelProto, dice: Random) -> None:
    del model.opset_import[:]
    for domain, version in (
        dice.choice(
            (((), ()), (("own", 1),), (("", 999),), (("", -5),), (("", 0),), (("", 21), ("", 13)), (("", 2**62),))
        )
        or ()
    ):
        model.opset_import.append(helper.make_opsetid(domain, version))


def _element_type(model: ModelProto, dice: Random) -> None:
    value = dice.choice((*model.graph.input, *model.graph.output))
    value.type.tensor_type.elem_type = dice.choice((0, 8, 14, 16, 17, 22, 23, 99, -1, 2**31 - 1))


def _value_type(model: ModelProto, dice: Random) -> None:
    value = dice.choice((*model.graph.input, *model.graph.output))
    tensor = helper.make_tensor_type_proto(dice.choice((1, 8)), [1])
    value.type.CopyFrom(
        dice.choice(
            (helper.make_sequence_type_proto(tensor), helper.make_optional_type_proto(tensor), onnx.TypeProto(),
             helper.make_map_type_proto(7, tensor), helper.make_sparse_tensor_type_proto(1, [1]))
        )
    )  # fmt: skip


def _external(model: ModelProto, dice: Random) -> None:
    odd: dict[str, Any] = {
        "location": (
            "../../canary",
            "/etc/passwd",
            "a\0b",
            "m.onnx",
            "",
            ".",
            "..",
            "/dev/zero",
            "fifo",
            "\x1b[2J",
            "w.bin/",
            "./w.bin",
            "x" * 5000,
            "C:\\w.bin",
            "link",
        ),
        "offset": (
            "-1",
            "x",
            "",
            "99999999999999999999999",
            "1e3",
            "0x40",
            "63",
            " 64",
            "\N{SUPERSCRIPT TWO}",
            "9" * 5000,
            "64.0",
        ),
        "length": ("-1", "x", "", "0", "1", "127", "99999999999999999999999", "9" * 5000),
    }
    key = dice.choice(list(odd))
    for entry in model.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = dice.choice(odd[key])
    if dice.random() < 0.2:
        model.graph.initializer[0].external_data.add(
            key=dice.choice(("unknown", "offset", "location", "")), value=dice.choice(_WORDS)
        )
    if dice.random() < 0.1:
        del model.graph.initializer[0].external_data[:]


def _dims(model: ModelProto, dice: Random) -> None:
    tensor = dice.choice(model.graph.initializer)
    del tensor.dims[:]
    tensor.dims.extend(
        dice.choice(([10**12], [-1], [-1, -4], [2**32, 2**32], [0], [], [2**62, 2**62, 4], [8, 4, 1], [1] * 70))
    )


def _data(model: ModelProto, dice: Random) -> None:
    tensor = model.graph.initializer[1]
    tensor.data_type = dice.choice((0, 1, 8, 9, 10, 11, 14, 16, 17, 21, 22, 23, 99, -7))
    tensor.raw_data = dice.choice((b"", b"\0", b"\0" * 16, b"\0" * 1000, tensor.raw_data))
    if dice.random() < 0.3:
        tensor.float_data.extend([1.0] * dice.choice((1, 4, 100)))
    if dice.random() < 0.2:
        tensor.ClearField("raw_data")
        tensor.string_data.extend([b"\xff"] * 4)


def _axes(model: ModelProto, dice: Random) -> None:
    dims = dice.choice((model.graph.input[0], model.graph.output[0])).type.tensor_type.shape.dim
    kind = dice.randrange(5)
    if kind == 0:
        dims[dice.randrange(2)].dim_value = dice.choice((0, -1, 10**12, 2**62, 7))
    elif kind == 1:
        dims[dice.randrange(2)].dim_param = dice.choice(_WORDS)
    elif kind == 2:
        del dims[:]
    elif kind == 3:
        for _ in range(dice.choice((1, 5, 70))):
            dims.add(dim_value=1)
    else:
        dims[1].ClearField("dim_value")


def _names(model: ModelProto, dice: Random) -> None:
    graph = model.graph
    word = dice.choice(_WORDS)
    thing = dice.choice((*graph.node, *graph.input, *graph.output, *graph.initializer, graph))
    if dice.random() < 0.5 and graph.node:
        old = dice.choice(("x", "y", "h"))
        for node in graph.node:
            node.input[:] = [word if name == old else name for name in node.input]
            node.output[:] = [word if name == old else name for name in node.output]
        for value in (*graph.input, *graph.output):
            value.name = word if value.name == old else value.name
    else:
        thing.name = word


def _nodes(model: ModelProto, dice: Random) -> None:  # noqa: C901  # one line a change
    node = dice.choice(model.graph.node)
    kind = dice.randrange(9)
    if kind == 0:
        node.op_type = dice.choice(
            ("", "Nothing", "Loop", "If", "Scan", "Constant", "MatMul", "Conv", "Gemm", "\x1b[2J")
        )
    elif kind == 1:
        node.domain = dice.choice(("own", "com.microsoft", "unknown", "ai.onnx", "\0"))
    elif kind == 2:
        del node.input[:]
    elif kind == 3:
        node.input.append(dice.choice(("y", "nothing", "", "x")))
    elif kind == 4:
        node.output.extend(["x", "more"][: dice.choice((1, 2))])
    elif kind == 5:
        del node.output[:]
    elif kind == 6:
        model.graph.node.append(node)
    elif kind == 7:
        del model.graph.node[dice.randrange(len(model.graph.node))]
    else:
        node.attribute.append(
            helper.make_attribute(dice.choice(("then_branch", "alpha", "", "value")), dice.choice((1, "x", [1.0])))
        )


def _cycle(model: ModelProto, dice: Random) -> None:
    model.graph.node[0].input[0] = dice.choice(("y", "r", "h"))


def _recursion(model: ModelProto, dice: Random) -> None:
    function = model.functions[0]
    if dice.random() < 0.5:
        function.node[0].op_type, function.node[0].domain = "Own", "own"
        function.opset_import.append(helper.make_opsetid("own", 1))
    else:
        function.name = dice.choice(("", "Other", "Relu"))
        function.domain = dice.choice(("", "own", "ai.onnx"))
        if dice.random() < 0.3:
            model.functions.append(function)


def _loop(model: ModelProto, dice: Random) -> None:
    """A loop that ends never, or after 2**62 steps."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Add", ["carried", "one"], ["next"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("carried", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), helper.make_tensor_value_info("next", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(1), "one")],
    )  # fmt: skip
    steps = dice.choice(("", "steps"))
    model.graph.initializer.append(numpy_helper.from_array(np.int64(2**62), "steps"))
    model.graph.node[-1].input[0] = "looped"
    model.graph.node.insert(
        len(model.graph.node) - 1, helper.make_node("Loop", [steps, "yes", "r"], ["looped"], body=body)
    )


def _big(model: ModelProto, dice: Random) -> None:
    """Nodes that make a lot of values out of nothing."""
    size = dice.choice((10**9, 10**12, 2**62, -1))
    model.graph.initializer.append(numpy_helper.from_array(np.array([size]), "size"))
    model.graph.node.append(helper.make_node(dice.choice(("ConstantOfShape", "Range", "OneHot")), ["size"], ["large"]))
    model.graph.node.append(helper.make_node("Size", ["large"], ["counted"]))
    if dice.random() < 0.5:
        model.graph.output.append(helper.make_tensor_value_info("counted", TensorProto.INT64, []))


def _deep(model: ModelProto, dice: Random) -> None:
    graph = helper.make_graph([], "inner", [], [])
    for number in range(dice.choice((5, 12, 20))):
        node = helper.make_node(
            "If", ["yes"], [f"o{number}"], then_branch=graph, else_branch=helper.make_graph([], "none", [], [])
        )
        graph = helper.make_graph([node], f"g{number}", [], [])
    model.graph.node.append(graph.node[0])


def _emptied(model: ModelProto, dice: Random) -> None:
    field = dice.choice(("node", "input", "output", "initializer"))
    del getattr(model.graph, field)[:]
    if dice.random() < 0.3:
        model.ClearField("graph")


def _version(model: ModelProto, dice: Random) -> None:
    model.ir_version = dice.choice((0, 1, 3, 99, 2**62, -1))


def _output(model: ModelProto, dice: Random) -> None:
    kind = dice.randrange(3)
    model.graph.output.append(helper.make_tensor_value_info(("nothing", "y", "x")[kind], TensorProto.FLOAT, None))


CHANGES: tuple[Change, ...] = (
    _no_opset, _element_type, _value_type, _external, _external, _external, _dims, _data, _axes, _axes, _names, _names, _nodes, _nodes, _cycle,
    _recursion, _loop, _big, _deep, _emptied, _version, _output,
)  # fmt: skip


def damage(path: Path, dice: Random) -> str:
    """Change one thing, or two; returns which."""
    model = onnx.load(path, load_external_data=False)
    (path.parent / "link").symlink_to("/etc/passwd")
    chosen = [dice.choice(CHANGES) for _ in range(dice.choice((1, 1, 1, 2)))]
    for change in chosen:
        change(model, dice)
    path.write_bytes(model.SerializeToString())
    return " and ".join(change.__name__ for change in chosen)
