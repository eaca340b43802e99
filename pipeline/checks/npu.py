"""A bundle on the NPUs that its target names: what of it the compiled graphs run there, and where to run them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import ModelProto

from pipeline.bundle.contexts import read_context
from pipeline.bundle.records import bundle_graphs, read_metadata
from pipeline.checks.providers import compiled_coverage
from pipeline.checks.typed_values import Shape
from pipeline.checks.weights import Weight
from pipeline.config.socs import Soc, soc_called
from pipeline.config.target import Target
from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.core.installed import require_export
from pipeline.core.report_types import NpuGraph, ProviderCoverage
from pipeline.devices.qnn.compiler import CONTEXT, compile_graph, read_compiled
from pipeline.devices.qnn.environment import require
from pipeline.devices.qnn.runner import QnnRunner
from pipeline.devices.runner import Runner
from pipeline.forecast.latency import CONVOLVED
from pipeline.forecast.work import Work
from pipeline.graph.files import save_model

_BORDERS = ("Constant", "QuantizeLinear", "DequantizeLinear")
"""What is not counted: inputs and outputs are rounded on the CPU, and what is rounded between is one operator there."""


def npu_graphs(bundle: Path, target: Target, models: Sequence[ModelProto]) -> tuple[NpuGraph, ...]:
    """What the bundle's compiled graphs consist of, of those that the target asks for. `models`: the portable form."""
    operators = sum(node.op_type not in _BORDERS for model in models for node in model.graph.node)
    graphs = bundle_graphs(bundle)
    found = ((soc_called(name), read_context(graphs, soc_called(name))) for name in _both(bundle, target))
    return tuple(
        NpuGraph(
            soc=soc.name,
            title=soc.title,
            operators=operators,
            parts=each.parts,
            left={name: count for name, count in each.left.items() if name not in _BORDERS},
        )
        for soc, each in found
    )


def npu_runners(bundle: Path, target: Target) -> dict[str, Runner]:
    """By SoC; none where QNN is not set up here (see `untried`)."""
    names = _both(bundle, target)
    if not names or _missing():
        return {}
    return {name: QnnRunner(soc_called(name)) for name in names}


def compiled(listed: ProviderCoverage, model: ModelProto, shapes: Mapping[str, Shape], soc: Soc) -> ProviderCoverage:
    """What QNN takes of a float or quantized graph for inputs of these shapes, where it is set up here: by compiling
    it. Else what it `listed`, with the reason."""
    if why := _missing() or _lacks_optimizer():
        return listed.model_copy(update={"needs": "; ".join(filter(None, (listed.needs, f"(not compiled: {why})")))})
    from pipeline.trace.fix_shapes import fix_shapes  # noqa: PLC0415  # needs what exports need

    with tempfile.TemporaryDirectory(prefix="edge-compile-") as folder:
        file, out = Path(folder) / "model.onnx", Path(folder) / "compiled.onnx"
        save_model(fix_shapes(model, shapes), file)
        environment = require()
        try:
            compile_graph(environment, soc, file, out)
        except StageError as error:
            return listed.model_copy(update={"needs": error.message})
        fixed, made = (onnx.load(path, load_external_data=False) for path in (file, out))
    left = {node.name for node in made.graph.node if node.op_type != CONTEXT}
    said = f"onnxruntime-qnn {environment.record.wheel} for {soc.name} ({soc.title})"
    return compiled_coverage(listed, fixed, left, read_compiled(made).parts, said)


def _lacks_optimizer() -> str:
    """Why shapes cannot be fixed here; empty if they can."""
    try:
        require_export()
    except UsageError as error:
        return f"{error.message} {error.remedy}"
    return ""


def fp16_advice(work: Work, weights: Sequence[Weight]) -> tuple[str, ...]:
    """What Qualcomm AI Hub's rows of release 0.65 say (ONNX Runtime 1.30 on the NPU; 32 models in both precisions)."""
    rounded = any(weight.bits <= 8 for weight in weights)
    if not rounded or work.convolved >= CONVOLVED:
        return ()
    return (
        "On Qualcomm's NPU such a model may be slower in INT8 than in fp16: of 32 published models in both, the only "
        "text encoder, MiniLM-L6, takes 1.07 to 1.75 times its fp16 time in w8a8 (0.85 ms against 0.50 on the Galaxy "
        "S25). Measure fp16 there too (--recipe fp16).",
    )


def untried(bundle: Path, target: Target, tried: Sequence[str]) -> str:
    """Why the bundle was not run on each NPU that the target names; empty if it was, or names none."""
    lacking = [name for name in target.npu.socs if name not in tried] if target.npu else []
    if not lacking:
        return ""
    if without := [name for name in lacking if name not in read_metadata(bundle).npu]:
        return f"{no_context(without)}"
    return f"nothing ran on {', '.join(lacking)}: {_missing() or 'another runner was named'}"


def no_context(socs: Sequence[str]) -> str:
    """Why figures of a compiled graph are missing."""
    return (
        f"the bundle has no graph compiled for {', '.join(socs)}: `edge devices setup qnn` on x86-64 Linux, and export "
        "it again there"
    )


def _both(bundle: Path, target: Target) -> list[str]:
    """The SoCs that the target asks for and the bundle has a graph for."""
    asked = target.npu.socs if target.npu else ()
    return [name for name in asked if name in read_metadata(bundle).npu]


def _missing() -> str:
    """Why QNN's library cannot compute here; empty if it can."""
    try:
        require()
    except EdgeError as error:
        return f"{error.message} {error.remedy}".strip()
    return ""
