"""When convolutions pay in integers: chains of 1x1 and depthwise convolutions in float and in INT8, beside the rule.

    python -m benchmarks.stretches

The two graphs take turns on one thread. `rule` is what `quantize.stretches` says of each chain; it was set by these
figures.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from pipeline.config.target import Runtime
from pipeline.quantize.layers import find_layers
from pipeline.quantize.qdq_region import find_region
from pipeline.quantize.stretches import slow_convolutions
from pipeline.runtime.session import make_session

_BLOCKS = 3
_SECONDS = 1.5
_SHAPES = ((32, 28), (64, 28), (128, 14), (128, 28), (256, 14), (512, 7), (512, 14))


def main() -> None:
    """A row per chain."""
    logging.disable(logging.WARNING)  # the quantizer's advice on pre-processing
    print(f"{'activation':<12}{'channels':>9}{'side':>6}{'float us':>10}{'INT8':>8}   rule")
    for activation in ("Relu", "HardSwish"):
        for channels, side in _SHAPES:
            with tempfile.TemporaryDirectory() as scratch:
                seconds, ratio, slow = _measured(Path(scratch), activation, channels, side)
            said = "float" if slow == 2 * _BLOCKS else f"{2 * _BLOCKS - slow} of {2 * _BLOCKS} in integers"
            print(f"{activation:<12}{channels:>9}{side:>6}{1e6 * seconds:>10.0f}{ratio:>7.2f}x   {said}", flush=True)


def _measured(scratch: Path, activation: str, channels: int, side: int) -> tuple[float, float, int]:
    """Seconds of the float graph, how many times as fast INT8 is, and the convolutions that stay in float."""
    exact, integer = scratch / "float.onnx", scratch / "int8.onnx"
    onnx.save(_chain(activation, channels, side), exact)
    rows = [np.random.default_rng(seed).normal(size=(1, channels, side, side)).astype(np.float32) for seed in range(3)]
    quantize_static(
        exact,
        integer,
        _Rows(rows),
        op_types_to_quantize=["Conv", "Relu"],
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    of_float, of_integers = _seconds([exact, integer], rows[0])
    graph = ir.load(exact).graph
    region = find_region(graph, find_layers(graph, ())[0])
    values = dict.fromkeys(region.tensors, float(channels * side * side))
    return of_float, of_float / of_integers, len(slow_convolutions(graph, region, values))


def _chain(activation: str, channels: int, side: int) -> onnx.ModelProto:
    """Blocks of 1x1, activation, 3x3 depthwise, activation."""
    draw = np.random.default_rng(0).normal
    nodes: list[NodeProto] = []
    weights = []
    last = "x"
    for place in range(2 * _BLOCKS):
        shape, more = (channels, channels, 1, 1), {}
        if place % 2:
            shape, more = (channels, 1, 3, 3), {"group": channels, "pads": [1, 1, 1, 1]}
        weights.append(numpy_helper.from_array((draw(size=shape) / channels**0.5).astype(np.float32), f"w{place}"))
        nodes.append(helper.make_node("Conv", [last, f"w{place}"], [f"c{place}"], name=f"c{place}", **more))
        last = f"a{place}"
        nodes.append(helper.make_node(activation, [f"c{place}"], [last], name=last))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, side, side]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class _Rows(CalibrationDataReader):  # type: ignore[misc]  # it has no types
    def __init__(self, rows: Sequence[np.ndarray]) -> None:
        self._rows = iter(rows)

    def get_next(self) -> dict[str, np.ndarray] | None:
        row = next(self._rows, None)
        return None if row is None else {"x": row}


def _seconds(paths: Sequence[Path], x: np.ndarray) -> list[float]:
    """The 20th percentile of runs that take turns: other programs only ever add."""
    sessions = [make_session(path, Runtime(threads=1)) for path in paths]
    found: list[list[float]] = [[] for _ in sessions]
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        for times, session in zip(found, sessions, strict=True):
            begin = time.perf_counter()
            session.run(None, {"x": x})
            times.append(time.perf_counter() - begin)
    return [float(np.percentile(times, 20)) for times in found]


if __name__ == "__main__":
    main()
