"""Graphs and the records of their kernels, made by hand or by ONNX Runtime, for tests of what is counted in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper

from pipeline.checks.weights import Graph
from pipeline.config.target import Runtime
from pipeline.devices import worker
from pipeline.devices.ort_profile import NodeRecord, node_records
from pipeline.devices.runner import subject_of
from pipeline.devices.worker import Profile
from pipeline.runtime.feeds import write_feed

Shapes = tuple[tuple[int, ...], ...]
MS = {"domain": "com.microsoft"}
node = helper.make_node


def record(op_type: str, inputs: Shapes, outputs: Shapes, name: str = "n", calls: float = 1.0) -> NodeRecord:
    return NodeRecord(
        name=name,
        op_type=op_type,
        provider="cpu",
        ms=1.0,
        calls=calls,
        input_shapes=inputs,
        output_shapes=outputs,
    )


def run(path: Path, x: np.ndarray, folder: Path) -> tuple[onnx.ModelProto, list[NodeRecord]]:  # type: ignore[type-arg]
    """The graph that ONNX Runtime really ran, and its records."""
    write_feed(folder / "x.npz", {"x": x})
    optimized = folder / "optimized.onnx"
    subject = subject_of(path, folder / "x.npz", Runtime())
    request = Profile(subjects=(subject,), runs=1, warmup=1, optimized_model=str(optimized))
    records = node_records(worker.profile(request)["events"], request.warmup)
    return onnx.load(optimized, load_external_data=False), records


def graph_of(nodes: list[NodeProto], constants: dict[str, np.ndarray]) -> Graph:  # type: ignore[type-arg]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    return Graph(helper.make_model(helper.make_graph(nodes, "g", [], [], tensors)))


def float_values(*dims: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.ones(dims, np.float32)


def body_of(nodes: list[NodeProto], inputs: list[str], outputs: list[str], **constants: np.ndarray) -> onnx.GraphProto:  # type: ignore[type-arg]
    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, 1, None)

    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_graph(nodes, "body", [*map(info, inputs)], [*map(info, outputs)], tensors)
