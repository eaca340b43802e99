"""Stage function: PyTorch model -> float ONNX, cleaned, named after the model's own modules, and proven equal."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

from pipeline.compress import EARLIER
from pipeline.compress.model import load_compressed
from pipeline.core.digest import pretty_json
from pipeline.core.stage import StageContext
from pipeline.core.types import Json
from pipeline.source.prepare import image_size, tokenizer_inputs
from pipeline.source.torch_model import wrap
from pipeline.trace.canonical import canonicalize, rename_axes
from pipeline.trace.examples import declared_inputs, example_inputs, text_inputs
from pipeline.trace.failure import cannot_export
from pipeline.trace.graph import CONFIG, MODEL, SIGNATURE, save_model, signature
from pipeline.trace.module import trace_module, uncollected
from pipeline.trace.parity import check_parity

Tensors = dict[str, torch.Tensor]


def run(context: StageContext) -> dict[str, Json]:
    """Writes `model.onnx`, `model.onnx.data` and `signature.json` (inputs and outputs with dtypes and shapes), and of a
    compressed Hugging Face model the `config.json` that says what passes made of it.

    StageError if the model cannot be traced, or ONNX Runtime's outputs differ from PyTorch's.
    """
    source, opset = context.config["source"], context.config["opset"]
    model = _prepared(source, context)
    examples, others = _examples(model, source, context.config["example_length"])
    context.progress(1, 4)
    if source["kind"] == "factory":
        graph = trace_module(model, examples, source, opset)
    else:
        graph = trace(model, examples, opset)
    canonicalize(graph, prefix="model." if source["sentence_transformer"] else "")
    rename_axes(graph.graph, source["inputs"])
    context.progress(2, 4)
    save_model(graph, context.out / MODEL)
    (context.out / SIGNATURE).write_text(pretty_json(signature(graph)), encoding="utf-8")
    if EARLIER in context.inputs and isinstance(model, PreTrainedModel):
        (context.out / CONFIG).write_text(model.config.to_json_string(), encoding="utf-8")
    context.progress(3, 4)
    difference = check_parity(model, context.out / MODEL, [examples, others])
    context.progress(4, 4)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"max_difference_to_torch": difference, "parameters": parameters, "opset": graph.opset_imports[""]}


def _prepared(source: dict[str, Any], context: StageContext) -> nn.Module:
    """Loaded, changed by the passes before, and with its pooling inside."""
    return wrap(load_compressed(source, context.inputs).model, source)


def _examples(model: nn.Module, source: dict[str, Any], length: int) -> tuple[Tensors, Tensors]:
    """Inputs to trace with, and others of another batch and length to compare with."""
    if source["inputs"]:
        return declared_inputs(source["inputs"], 2, length, 0), declared_inputs(source["inputs"], 3, length + 5, 1)
    names = text_inputs(model, tokenizer_inputs(source)) if source["data"] == "text" else ["pixel_values"]
    size = image_size(source) if source["data"] == "image" else None
    return (
        example_inputs(model, source["data"], names, batch=2, length=length, seed=0, size=size),
        example_inputs(model, source["data"], names, batch=3, length=length + 5, seed=1, size=size),
    )


def trace(model: nn.Module, examples: dict[str, torch.Tensor], opset: int) -> ir.Model:
    """Export with a dynamic batch and, for sequences, a dynamic length. Images keep their height and width."""
    dynamic = {
        name: dict.fromkeys((0, 1) if tensor.dim() == 2 else (0,), torch.export.Dim.DYNAMIC)
        for name, tensor in examples.items()
    }
    config = OnnxConfig(dynamic=True, opset_version=opset, dynamic_shapes=dynamic)
    try:
        with uncollected():
            return OnnxExporter().export(model, dict(examples), config=config).program
    except (RuntimeError, ValueError, TypeError, NotImplementedError, torch.onnx.OnnxExporterError) as error:
        raise cannot_export(type(model).__name__, opset, error) from error
