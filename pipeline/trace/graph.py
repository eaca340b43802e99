"""Small things that every stage does with an ONNX model: save, load, describe."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from pipeline.core.types import Json

MODEL = "model.onnx"
SIGNATURE = "signature.json"
CONFIG = "config.json"
_INLINE = 1024  # bytes; smaller tensors stay in the graph file, where shape inference can see them


def save_model(model: ir.Model, path: Path) -> None:
    """Write `<name>.onnx` and its weights in `<name>.onnx.data` beside it."""
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=_INLINE)


def load_model(path: Path) -> ir.Model:
    return ir.load(path)


def signature(model: ir.Model) -> dict[str, Json]:
    """Inputs and outputs: name, dtype, shape (an int, or the name of a dynamic axis)."""
    return {
        "inputs": [_describe(value) for value in model.graph.inputs],
        "outputs": [_describe(value) for value in model.graph.outputs],
    }


def _describe(value: ir.Value) -> dict[str, Json]:
    dimensions = [] if value.shape is None else [d if isinstance(d, int) else str(d.value) for d in value.shape]
    return {"name": value.name, "dtype": str(value.dtype).lower(), "shape": dimensions}
