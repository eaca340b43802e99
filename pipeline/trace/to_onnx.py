"""Stage function: PyTorch model -> float ONNX, cleaned, named after the model's own modules, and proven equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from onnxscript import version_converter
from torch import nn
from transformers import PreTrainedModel
from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

from pipeline.compress import PREVIOUS_PASS
from pipeline.compress.compressed_model import load_compressed
from pipeline.core.errors import StageError
from pipeline.core.known_digests import known_sha256
from pipeline.core.model_spec import ModelSpec
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Progress, share_of, silent
from pipeline.data.encode import image_size, tokenizer_inputs
from pipeline.graph.files import MODEL, file_of, record_graphs, save_model, save_referring
from pipeline.runtime.session import is_large
from pipeline.source.cached import CachedDecoder, after_passes
from pipeline.source.coded.checkpoint import coded_checkpoint
from pipeline.source.model_config import CONFIG, read_config
from pipeline.source.streamed import Streamed, open_streamed
from pipeline.source.torch_model import wrap
from pipeline.trace.canonical import canonicalize, rename_axes
from pipeline.trace.decoder import decoder_forms
from pipeline.trace.examples import declared_inputs, example_inputs, text_inputs, used_lengths
from pipeline.trace.failure import cannot_export
from pipeline.trace.fuse_attention import OPSET
from pipeline.trace.graph_source import GraphSource, continuing, halves
from pipeline.trace.module import trace_module, uncollected
from pipeline.trace.pack_attention import Alike, always_alike
from pipeline.trace.parity import check_parity, check_room, fresh

Tensors = dict[str, torch.Tensor]
_FLOAT = 4
"""Bytes."""


def run(context: StageContext) -> StageMetadata:
    """Writes the model's graph (see `graph.files`), and of a compressed Hugging Face model the `config.json` that says
    what passes made of it.

    StageError if the model cannot be traced, or ONNX Runtime's outputs differ from PyTorch's at a length up to
    `max_length` tokens.
    """
    spec = context.model
    streamed = _streamed(spec, context)
    model = streamed.model if streamed else _prepared(spec, context)
    changed: StageMetadata = {}
    if PREVIOUS_PASS in context.inputs and spec.language is not None and isinstance(model, PreTrainedModel):
        language = after_passes(model, spec.language)
        spec = spec.model_copy(update={"language": language})
        changed = {"language": language.model_dump(mode="json")}
    sources = _sources(model, spec, context.config["max_length"], streamed)
    steps = len(sources) + 2
    context.progress(1, steps)
    made = []
    for number, source in enumerate(sources, start=1):
        path, share = context.out / file_of(source.name), share_of(context.progress, number, steps)
        made.append(_proven(source, spec, context, path, share))
    graphs = {source.name: graph.graph for source, graph in zip(sources, made, strict=True)}
    if streamed is not None:
        streamed.require_unchanged()
    record_graphs(context.out, graphs, {source.name: source.feeds for source in sources})
    if PREVIOUS_PASS in context.inputs and isinstance(model, PreTrainedModel):
        (context.out / CONFIG).write_text(model.config.to_json_string(), encoding="utf-8", newline="\n")
    context.progress(steps, steps)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "max_difference_to_torch": max(graph.difference for graph in made),
        "parameters": parameters,
        "opset": made[0].graph.opset_imports[""],
        "notes": [note for graph in made for note in graph.notes],
        **changed,
    }


def _streamed(spec: ModelSpec, context: StageContext) -> Streamed | None:
    """A language model of which memory holds one matrix at a time; None if all of it must be loaded."""
    return open_streamed(spec) if spec.language is not None and PREVIOUS_PASS not in context.inputs else None


def _prepared(spec: ModelSpec, context: StageContext) -> nn.Module:
    """Loaded, changed by the passes before, with its pooling inside, and without the cache of a decoder that does not
    continue texts: nobody reads it after one pass over a text."""
    model = load_compressed(spec, context.inputs).model
    model = model if spec.language is not None else wrap(model, spec, context.config.get("states", False))
    if isinstance(model, PreTrainedModel) and getattr(model.config, "use_cache", False) and spec.language is None:
        model.config.use_cache = False
    return model


def _sources(model: nn.Module, spec: ModelSpec, max_length: int, streamed: Streamed | None) -> list[GraphSource]:
    """What each graph of the model is traced from."""
    if spec.language is not None:
        return [continuing(model, spec.language, max_length, streamed)]
    cases = _cases(model, spec, max_length)
    if spec.decoder is None:
        return [GraphSource(MODEL, model, cases, "model." if spec.sentence_transformer else "")]
    return halves(model, cases, spec.decoder.most(max_length))


def _cases(model: nn.Module, spec: ModelSpec, max_length: int) -> list[Tensors]:
    """Inputs to trace with, which are the first, and others of more batches and lengths to compare on."""
    text = spec.data == "text"
    shapes = list(used_lengths(max_length)) if text else [(2, 16), (3, 21)]
    if spec.inputs:
        return [declared_inputs(spec.inputs, batch, size, seed) for seed, (batch, size) in enumerate(shapes)]
    names = text_inputs(model, tokenizer_inputs(spec)) if text else ["pixel_values"]
    size = image_size(spec) if spec.data == "image" else None
    return [
        example_inputs(model, spec.data, names, batch, length, seed, size)
        for seed, (batch, length) in enumerate(shapes)
    ]


@dataclass(frozen=True)
class _Proven:
    """A graph that ONNX Runtime runs with the model's own outputs, the largest difference to them, and what had to be
    written otherwise for that."""

    graph: ir.Model
    difference: float
    notes: tuple[str, ...]


def _proven(
    source: GraphSource, spec: ModelSpec, context: StageContext, path: Path, progress: Progress = silent
) -> _Proven:
    """The first form of the graph that is proven equal, saved at `path`; StageError with what the last one did."""
    failures: list[StageError] = []
    for graph, form in _forms(source, spec, context.config["opset"]):
        canonicalize(graph, source.prefix, form.fused, source.axes, _alike(spec))
        rename_axes(graph.graph, spec.inputs)
        _save(graph, source, context, path, share_of(progress, 0, 2))
        try:
            with source.running():
                difference = check_parity(source.module, path, source.cases, share_of(progress, 1, 2))
                if source.far is not None:
                    difference = max(difference, check_parity(source.far[0], path, source.far[1], first=True))
            if source.room:
                check_room(path, source.roomy, source.room)
        except StageError as error:
            failures.append(error)
            continue
        reasons = [form.why] if form.why else [failure.message for failure in failures[:1]]
        notes = [f"The graph is exported with {form.title}: {reason}" for reason in reasons]
        return _Proven(graph, difference, tuple(notes))
    raise failures[-1]


def _save(graph: ir.Model, source: GraphSource, context: StageContext, path: Path, progress: Progress) -> None:
    """Matrices of a large model stay in the checkpoint's files, where those who read the graph can do with it."""
    large = source.streamed is not None and is_large(_FLOAT * source.streamed.parameters)
    if large and context.config.get("refers", False):
        for name, file in save_referring(graph, path).items():
            context.digests[name] = known_sha256(file)
    else:
        save_model(graph, path, progress)


def _alike(spec: ModelSpec) -> Alike:
    """Codes of different forms cannot be those of one product."""
    if not spec.coded:
        return always_alike
    checkpoint = coded_checkpoint(spec.path, read_config(spec.path), spec.entry)
    assert checkpoint is not None  # noqa: S101  # the source was vetted as one
    return checkpoint.alike


@dataclass(frozen=True)
class _Form:
    """How a graph may be written: by the tracer's operators of which opset, and with fused attention or not. `why`: why
    a better form could not be traced."""

    traced: int
    fused: bool
    title: str = ""
    why: str = ""


def _forms(source: GraphSource, spec: ModelSpec, opset: int) -> Iterator[tuple[ir.Model, _Form]]:
    """The graph, best form first: ONNX Runtime does not run all that tracers may write at opset 23 (rotary positions,
    masked attention), so that forms with the operators of the opset before follow. All are of `opset` in the end."""
    if isinstance(source.module, CachedDecoder) and spec.language is not None:
        for graph, title, why in decoder_forms(source.module, spec.language, opset, source.streamed):
            yield graph, _Form(opset, fused=False, title=title, why=why)
        return
    yield _traced(source, spec, opset), _Form(opset, fused=True)
    if opset >= OPSET:
        plain = _traced(source, spec, OPSET - 1)
        version_converter.convert_version(plain, opset)
        yield plain.clone(), _Form(OPSET - 1, True, f"the operators of opset {OPSET - 1}")
        yield plain, _Form(OPSET - 1, False, f"the operators of opset {OPSET - 1} and attention written out")


def _traced(source: GraphSource, spec: ModelSpec, opset: int) -> ir.Model:
    model, examples = fresh(source.module), source.cases[0]
    if spec.kind == "factory":
        return trace_module(model, examples, spec, opset)
    return trace(model, examples, opset, [name for name, axes in source.axes.items() if len(axes) > 1])


def trace(model: nn.Module, examples: dict[str, torch.Tensor], opset: int, sequences: Sequence[str] = ()) -> ir.Model:
    """Export with a dynamic batch and, for ids and the inputs `sequences`, a dynamic length. Images keep their height
    and width."""
    dynamic = {
        name: dict.fromkeys((0, 1) if tensor.dim() == 2 or name in sequences else (0,), torch.export.Dim.DYNAMIC)
        for name, tensor in examples.items()
    }
    config = OnnxConfig(dynamic=True, opset_version=opset, dynamic_shapes=dynamic)
    try:
        with uncollected():
            return OnnxExporter().export(model, dict(examples), config=config).program
    except (RuntimeError, ValueError, TypeError, NotImplementedError, torch.onnx.OnnxExporterError) as error:
        raise cannot_export(type(model).__name__, opset, error) from error
