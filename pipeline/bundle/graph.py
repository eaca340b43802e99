"""The graph of a bundle, which anybody may have made: its manifest says only that the bytes are the listed ones."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, read_bytes, refused
from pipeline.source.onnx_checks import check_tensor
from pipeline.source.onnx_file import stored_tensors
from pipeline.trace.graph import MODEL

_AGAIN = "Export it again."


def read_graph(bundle: Path) -> ModelProto:
    """The graph, without the weights in files beside it. UsageError if the file is none, or
    has tensors that cannot be."""
    content = read_bytes(bundle / MODEL, Limit.GRAPH)
    with refused(f"{MODEL} of the bundle {bundle} is no ONNX model", _AGAIN):
        model = ModelProto.FromString(content)
        if not model.graph.node:
            raise UsageError(f"{MODEL} of the bundle {bundle} holds no graph.", _AGAIN)
        for tensor in stored_tensors(model):
            check_tensor(tensor, MODEL)
    return model
