"""Calibration: run samples through the float graph and reduce activations to ranges as they stream by.

Memory does not grow with the number of samples: a sample's activations are reduced (in the graph where the
observer allows it) before the next one is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from safetensors.numpy import save_file

from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext
from pipeline.core.types import Json, Progress, Scheme
from pipeline.quantize.conv import region_of
from pipeline.quantize.layers import find_layers
from pipeline.quantize.observers import ChannelMax
from pipeline.quantize.schemes import OBSERVERS
from pipeline.source.samples import Samples, open_samples
from pipeline.trace.graph import MODEL, load_model, save_model

RANGES = "ranges.safetensors"
CHANNELS = "channels.safetensors"
_SCRATCH = "observed.onnx"


def ranges(context: StageContext) -> dict[str, Json]:
    """Stage function: (low, high) of every tensor that will be rounded, float32 [2] per tensor."""
    scheme = Scheme.model_validate(context.config["scheme"])
    observer = OBSERVERS.get(scheme.observer)
    observed = _observe(context, scheme, observer)
    arrays = {name: np.array(seen.range(), np.float32) for name, seen in observed.items()}
    save_file(arrays, context.out / RANGES)
    return {"observer": scheme.observer, "tensors": len(arrays), "samples": len(_samples(context))}


def channels(context: StageContext) -> dict[str, Json]:
    """Stage function: the largest magnitude per channel of the same tensors, float32 [K] per tensor."""
    observed = _observe(context, Scheme.model_validate(context.config["scheme"]), ChannelMax)
    save_file({name: seen.magnitude for name, seen in observed.items()}, context.out / CHANNELS)
    return {"tensors": len(observed), "samples": len(_samples(context))}


def _samples(context: StageContext) -> Samples:
    return open_samples(context.inputs["samples"].path)


def _observe(context: StageContext, scheme: Scheme, observer: type) -> dict[str, Any]:
    model = load_model(context.inputs["graph"].file(MODEL))
    layers, _ = find_layers(model.graph, scheme.nodes_to_exclude)
    names = list(dict.fromkeys(layer.activation for layer in layers if layer.op == "linear"))
    if observer is not ChannelMax:
        names = list(dict.fromkeys([*names, *region_of(model.graph, layers, scheme).observed]))
    if not names:  # ONNX Runtime runs no graph without outputs
        return {}
    scratch = context.out / _SCRATCH
    outputs = _attach(model, names, observer, scratch)
    try:
        return _stream(scratch, outputs, observer, scheme.percentile, _samples(context), context.progress)
    finally:
        scratch.unlink()
        scratch.with_name(f"{_SCRATCH}.data").unlink(missing_ok=True)


def _attach(model: ir.Model, names: Sequence[str], observer: type, path: Path) -> dict[str, list[str]]:
    """Make the graph give out what the observer reads, and nothing else; tensor -> its extra outputs."""
    graph = model.graph
    values = {str(output.name): output for node in graph for output in node.outputs}
    values |= {str(value.name): value for value in graph.inputs}
    outputs: dict[str, list[ir.Value]] = {name: observer.attach(graph, values[name]) for name in names}  # type: ignore[attr-defined]
    graph.outputs.clear()
    for extra in (value for group in outputs.values() for value in group):
        extra.dtype = ir.DataType.FLOAT
        graph.outputs.append(extra)
    save_model(model, path)
    return {name: [str(value.name) for value in group] for name, group in outputs.items()}


def _stream(
    path: Path,
    outputs: dict[str, list[str]],
    observer: type,
    percentile: float,
    samples: Samples,
    progress: Progress,
) -> dict[str, Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # lengths differ from sample to sample: plans would only pile up
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = [name for group in outputs.values() for name in group]
    seen = {name: observer(percentile) for name in outputs}
    inputs = [entry.name for entry in session.get_inputs()]
    for done, row in enumerate(samples.select(inputs), start=1):
        values = dict(zip(wanted, session.run(wanted, row), strict=True))
        for name, group in outputs.items():
            _add(seen[name], name, [values[output] for output in group], done)
        progress(done, len(samples))
    return seen


def _add(observer: Any, name: str, values: list[Any], sample: int) -> None:
    if not all(np.isfinite(value).all() for value in values):
        raise StageError(
            f"Calibration sample {sample} drives the tensor {name!r} to a value that is not finite.",
            "Look at that sample, and at the float model's output on it.",
        )
    observer.add(*values)
