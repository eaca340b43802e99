"""The graphs of a bundle, which anybody may have made: its manifest says only that the bytes are the listed ones."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from pipeline.bundle.records import read_metadata
from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, read_bytes, refused
from pipeline.source.onnx_checks import check_tensor
from pipeline.source.onnx_file import stored_tensors

_AGAIN = "Export it again."


def read_graphs(bundle: Path) -> dict[str, ModelProto]:
    """The graphs by name, without the weights in files beside them. UsageError if a file is none, or has tensors that
    cannot be."""
    return {graph.name: _read(bundle, graph.file) for graph in read_metadata(bundle).graphs}


def _read(bundle: Path, file: str) -> ModelProto:
    content = read_bytes(bundle / file, Limit.GRAPH)
    with refused(f"{file} of the bundle {bundle} is no ONNX model", _AGAIN):
        model = ModelProto.FromString(content)
        if not model.graph.node:
            raise UsageError(f"{file} of the bundle {bundle} holds no graph.", _AGAIN)
        for tensor in stored_tensors(model):
            check_tensor(tensor, file)
    return model
