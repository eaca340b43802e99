"""Weights in blocks, packed for the kernels of this machine's CPU and mapped from a file, so that a process has none of
them in memory of its own. ONNX Runtime packs and writes a whole model, all of which it then holds; here it packs one
product after the other, and what it wrote is put together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx
import onnxruntime as ort
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from pipeline.core.paths import link

_WRITTEN = "packed.data"
_PACKED = "prepacked_"
"""What entries of external data with packed weights begin with: `<key>|<offset>;<bytes>;<padding>`, of one or several
buffers. (ONNX Runtime: PrepackedWeightsForGraph.)"""
_ALIGNED = 4096
_ERROR, _SMALL = 3, 1024


def pack(model: Path, out: Path) -> Path:
    """Write the graph `model`, whose weights lie in a file beside it, as ONNX Runtime executes it here, with the
    weights of its products in blocks packed. It is for this CPU and this release of ONNX Runtime alone.

    Args:
        model: The file of the graph.
        out: A folder, which must not exist yet; it has the weights under a second name.

    Returns:
        The file of the packed graph.
    """
    out.mkdir(parents=True)
    name = f"{model.name}.data"
    link(model.with_name(name), out / name)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        link(model.with_name(name), Path(scratch) / name)
        optimized = _optimized(model, Path(scratch) / "optimized.onnx")
        with (out / _WRITTEN).open("wb") as written:
            for node in [node for node in optimized.graph.node if node.op_type == "MatMulNBits"]:
                _pack_product(optimized, node, Path(scratch), written)
            for tensor in optimized.graph.initializer:
                _put_beside(tensor, written)
    onnx.save(optimized, out / model.name)
    return out / model.name


def _optimized(model: Path, file: Path) -> ModelProto:
    """The graph as it is executed; its weights stay where they are."""
    _write(model, file, {"session.disable_prepacking": "1"}, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    return onnx.load(file, load_external_data=False)


def _write(model: Path, file: Path, config: dict[str, str], level: ort.GraphOptimizationLevel) -> None:
    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = _ERROR, os.fspath(file)
    options.graph_optimization_level = level
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    ort.InferenceSession(os.fspath(model), options, providers=["CPUExecutionProvider"])


def _pack_product(model: ModelProto, node: NodeProto, scratch: Path, written: BinaryIO) -> None:
    """Pack the weights of one node, and let the model's tensors say where they lie."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in node.input}
    alone = scratch / "product.onnx"
    onnx.save(_alone(model, node, tensors), alone)
    config = {
        "session.optimized_model_external_initializers_file_name": "product.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_SMALL),
        "session.save_external_prepacked_constant_initializers": "1",
    }
    _write(alone, scratch / "written.onnx", config, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    with (scratch / "product.data").open("rb") as source:
        for tensor in onnx.load(scratch / "written.onnx", load_external_data=False).graph.initializer:
            if any(entry.key.startswith(_PACKED) for entry in tensor.external_data):
                _place(tensors[tensor.name], tensor, source, written)


def _alone(model: ModelProto, node: NodeProto, tensors: dict[str, TensorProto]) -> ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in node.input
        if name not in tensors and name
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
    graph = GraphProto(name="product", node=[node], initializer=list(tensors.values()), input=inputs, output=outputs)
    return ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)


def _place(tensor: TensorProto, packed: TensorProto, source: BinaryIO, written: BinaryIO) -> None:
    """Copy what `packed` has in `source`, and tell `tensor`."""
    told = {entry.key: entry.value for entry in packed.external_data}
    new = {"location": _WRITTEN, "length": told["length"]}
    new["offset"] = str(_copied(source, int(told["offset"]), int(told["length"]), written))
    for key, value in told.items():
        if key.startswith(_PACKED):
            name, _, buffers = value.partition("|")
            new[key] = f"{name}|{';'.join(_moved(buffers.split(';'), source, written))}"
    _tell(tensor, new)


def _put_beside(tensor: TensorProto, written: BinaryIO) -> None:
    """Let a tensor that the optimizer computed lie in the file too, unless it is small."""
    if len(tensor.raw_data) > _SMALL:
        begin = _begin(written)
        written.write(tensor.raw_data)
        _tell(tensor, {"location": _WRITTEN, "offset": str(begin), "length": str(len(tensor.raw_data))})


def _tell(tensor: TensorProto, where: dict[str, str]) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in where.items():
        tensor.external_data.add(key=key, value=value)


def _moved(buffers: list[str], source: BinaryIO, written: BinaryIO) -> Iterator[str]:
    """Offset, length and padding of each buffer, once it is copied."""
    for offset, length, padding in zip(buffers[::3], buffers[1::3], buffers[2::3], strict=True):
        yield from (str(_copied(source, int(offset), int(length), written)), length, padding)


def _copied(source: BinaryIO, offset: int, length: int, written: BinaryIO) -> int:
    """Where it lies then."""
    begin = _begin(written)
    source.seek(offset)
    left = length
    while left:
        piece = source.read(min(left, 1 << 24))
        if not piece:
            raise EOFError
        written.write(piece)
        left -= len(piece)
    return begin


def _begin(written: BinaryIO) -> int:
    """Where the next tensor goes, once that place is reached."""
    begin = -(-written.tell() // _ALIGNED) * _ALIGNED
    written.write(bytes(begin - written.tell()))
    return begin
