"""Stage function: PyTorch model -> float ONNX, cleaned, named after the model's own modules, and proven equal."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

from pipeline.compress.edits import replay
from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext
from pipeline.core.types import Json
from pipeline.source.prepare import tokenizer_inputs
from pipeline.source.torch_model import load_source, wrap
from pipeline.trace.canonical import canonicalize
from pipeline.trace.examples import example_inputs, text_inputs
from pipeline.trace.graph import MODEL, save_model, signature
from pipeline.trace.parity import check_parity

SIGNATURE = "signature.json"


def run(context: StageContext) -> dict[str, Json]:
    """Writes `model.onnx`, `model.onnx.data` and `signature.json` (inputs and outputs with dtypes and shapes).

    StageError if the model cannot be traced, or ONNX Runtime's outputs differ from PyTorch's.
    """
    source = context.config["source"]
    model = _prepared(source, context)
    names = text_inputs(model, tokenizer_inputs(source)) if source["data"] == "text" else ["pixel_values"]
    length = context.config["example_length"]
    examples = example_inputs(model, source["data"], names, batch=2, length=length, seed=0)
    context.progress(1, 4)
    graph = trace(model, examples, context.config["opset"])
    canonicalize(graph, prefix="model." if source["sentence_transformer"] else "")
    context.progress(2, 4)
    save_model(graph, context.out / MODEL)
    (context.out / SIGNATURE).write_text(pretty_json(signature(graph)), encoding="utf-8")
    context.progress(3, 4)
    others = example_inputs(model, source["data"], names, batch=3, length=length + 5, seed=1)
    difference = check_parity(model, context.out / MODEL, [examples, others])
    context.progress(4, 4)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"max_difference_to_torch": difference, "parameters": parameters, "opset": graph.opset_imports[""]}


def _prepared(source: dict[str, Any], context: StageContext) -> nn.Module:
    """Loaded, edited by the passes before, and with its pooling inside."""
    model = load_source(source)
    if "edits" in context.inputs:
        replay(model, context.inputs["edits"].read_json("edits.json"))
    return wrap(model, source)


def trace(model: nn.Module, examples: dict[str, torch.Tensor], opset: int) -> ir.Model:
    """Export with a dynamic batch and, for sequences, a dynamic length. Images keep their height and width."""
    dynamic = {
        name: dict.fromkeys((0, 1) if tensor.dim() == 2 else (0,), torch.export.Dim.DYNAMIC)
        for name, tensor in examples.items()
    }
    config = OnnxConfig(dynamic=True, opset_version=opset, dynamic_shapes=dynamic)
    try:
        with _uncollected():
            return OnnxExporter().export(model, dict(examples), config=config).program
    except (RuntimeError, ValueError, TypeError, NotImplementedError, torch.onnx.OnnxExporterError) as error:
        raise StageError(
            f"{type(model).__name__} cannot be exported to ONNX opset {opset}: {str(error).strip().splitlines()[0]}",
            "Run again with --debug for the exporter's full report, or try another --opset.",
        ) from error


@contextmanager
def _uncollected() -> Iterator[None]:
    """Tracing makes millions of small objects that live to its end: looking for garbage among them only costs time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
