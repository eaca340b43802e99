"""Small networks that between them have every kind of work, in different shares: what a device is calibrated with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pipeline.devices.worker import Feed

_SEED = 0
_MS = "com.microsoft"
_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid(_MS, 1)]
_IR = 9


@dataclass
class _Net:
    """A quantized convolutional network under construction: each method appends operators to its end.

    `channels`, `size`: of what the last operator writes, [1, channels, size, size].
    """

    channels: int
    size: int
    nodes: list[NodeProto] = field(default_factory=list)
    last: str = "x"

    def __post_init__(self) -> None:
        self.shape = [1, self.channels, self.size, self.size]
        self.draw = np.random.default_rng(_SEED)
        self.constants: dict[str, Any] = {
            "s": np.float32(0.02),
            "z": np.uint8(128),
            "ws": np.float32(0.01),
            "wz": np.int8(0),
        }

    def _append(self, op_type: str, inputs: list[str], domain: str = "", **attributes: Any) -> _Net:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, domain=domain, **attributes))
        self.last = name
        return self

    def conv(self, out: int, kernel: int = 1, group: int = 1, stride: int = 1) -> _Net:
        weight = f"w{len(self.constants)}"
        dims = (out, self.channels // group, kernel, kernel)
        self.constants[weight] = self.draw.integers(-60, 60, dims).astype(np.int8)
        inputs = [self.last, "s", "z", weight, "ws", "wz", "s", "z"]
        self.channels, self.size = out, -(-self.size // stride)
        window: dict[str, Any] = {
            "kernel_shape": [kernel, kernel],
            "pads": [kernel // 2] * 4,
            "strides": [stride, stride],
        }
        return self._append("QLinearConv", inputs, group=group, **window)

    def add(self, other: str = "") -> _Net:
        return self._append("QLinearAdd", [self.last, "s", "z", other or self.last, "s", "z", "s", "z"], _MS)

    def sigmoid(self) -> _Net:
        return self._append("QLinearSigmoid", [self.last, "s", "z", "s", "z"], _MS)

    def floats(self, *op_types: str) -> _Net:
        """Operators in float between roundings."""
        self._append("DequantizeLinear", [self.last, "s", "z"])
        for op_type in op_types:
            self._append(op_type, [self.last])
        return self._append("QuantizeLinear", [self.last, "s", "z"])

    def made(self) -> tuple[ModelProto, Feed]:
        feed = {"x": self.draw.integers(0, 255, self.shape).astype(np.uint8)}
        return _model(self.nodes, self.constants, self.last, TensorProto.UINT8, self.shape), feed


def _model(
    nodes: list[NodeProto],
    constants: dict[str, np.ndarray],
    last: str,
    kind: int,
    shape: list[int],
) -> ModelProto:
    x, y = helper.make_tensor_value_info("x", kind, shape), helper.make_tensor_value_info(last, kind, None)
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return helper.make_model(
        helper.make_graph(nodes, "probe", [x], [y], tensors), opset_imports=_OPSETS, ir_version=_IR
    )


def _plain(net: _Net, stages: int) -> _Net:
    """Two residual blocks of two 3x3 convolutions a stage, each of half the size."""
    for stage in range(stages):
        for _ in range(2):
            before, width = net.last, net.channels
            net.conv(width, 3).conv(width, 3).add(before)
        if stage < stages - 1:
            net.conv(2 * net.channels, 3, stride=2)
    return net


def _bottlenecks(net: _Net, group: int) -> _Net:
    """Three stages of three residual blocks: down to half of the channels, 3x3 in groups, and up."""
    for stage in range(3):
        for _ in range(3):
            before, width = net.last, net.channels
            net.conv(width // 2).conv(width // 2, 3, group).conv(width).add(before)
        if stage < 3 - 1:
            net.conv(2 * net.channels, stride=2)
    return net


def _mobile(net: _Net, width: int, repeated: int, sigmoid: bool = False) -> _Net:
    """Four stages of inverted residuals: up to four times the channels, 3x3 of each by itself, and down."""
    net.conv(width, 3, stride=2)
    for stage in range(4):
        for _ in range(repeated):
            before, own = net.last, net.channels
            net.conv(4 * own).conv(4 * own, 3, 4 * own)
            if sigmoid:
                net.sigmoid()
            net.conv(own).add(before)
        if stage < 4 - 1:
            own = net.channels
            net.conv(4 * own).conv(4 * own, 3, 4 * own, stride=2).conv(own * 3 // 2 // 8 * 8)
    return net


def _with_floats(net: _Net, width: int, repeated: int) -> _Net:
    """Three stages of many small blocks with an operator in float each."""
    net.conv(width, 5, stride=2)
    for stage in range(3):
        for _ in range(repeated):
            before = net.last
            net.conv(width, 3, width).conv(width).add(before).floats("Relu")
        if stage < 3 - 1:
            net.conv(width, 3, width, stride=2)
    return net


def _transformer(tokens: int, width: int, layers: int) -> tuple[ModelProto, Feed]:
    """Encoder layers with one head, in float."""
    draw = np.random.default_rng(_SEED)
    nodes: list[NodeProto] = []
    constants = {"g": np.ones(width, np.float32), "b": np.zeros(width, np.float32)}

    def put(op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(nodes)}"
        nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def product(x: str, rows: int, columns: int) -> str:
        weight = f"w{len(constants)}"
        constants[weight] = (draw.random((rows, columns), np.float32) - 0.5) * 0.1
        return put("MatMul", x, weight)

    x = "x"
    for _ in range(layers):
        queries, keys, values = (product(x, width, width) for _ in range(3))
        shares = put("Softmax", put("MatMul", queries, put("Transpose", keys, perm=[1, 0])))
        attended = product(put("MatMul", shares, values), width, width)
        x = put("LayerNormalization", put("Add", x, attended), "g", "b")
        inner = put("Erf", product(x, width, 4 * width))
        x = put("LayerNormalization", put("Add", x, product(inner, 4 * width, width)), "g", "b")
    feed = {"x": draw.random((tokens, width), np.float32)}
    return _model(nodes, constants, x, TensorProto.FLOAT, [tokens, width]), feed


def probes() -> dict[str, tuple[ModelProto, Feed]]:
    """The networks by name, each with its inputs: always the same."""
    values = _Net(64, 80).add().sigmoid().add().conv(64).sigmoid().add().conv(64, 3, 64).add()
    floats = _Net(32, 64).floats("Relu", "Erf", "Sigmoid", "Tanh").conv(32).floats("Erf", "HardSwish", "Relu")
    return {
        "plain": _plain(_Net(3, 112).conv(32, 7, stride=2), 3).made(),
        "plain-wide": _plain(_Net(64, 56), 3).made(),
        "plain-large": _plain(_Net(48, 96), 1).made(),
        "bottlenecks": _bottlenecks(_Net(128, 28), 1).made(),
        "grouped": _bottlenecks(_Net(128, 28), 16).made(),
        "mobile": _mobile(_Net(3, 160), 16, 2).made(),
        "mobile-sigmoid": _mobile(_Net(3, 96), 24, 2, sigmoid=True).made(),
        "mobile-tiny": _mobile(_Net(3, 32), 8, 3).made(),
        "with-floats": _with_floats(_Net(3, 96), 24, 5).made(),
        "with-floats-tiny": _with_floats(_Net(3, 24), 16, 6).made(),
        "floats": floats.conv(32, 3).made(),
        "values": values.made(),
        "transformer": _transformer(128, 192, 3),
    }
