"""Stage function: a given ONNX file -> the float graph that the later stages start from, proven equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import version_converter
from onnx_ir.passes.common import (
    IdentityEliminationPass,
    InlinePass,
    LiftConstantsToInitializersPass,
    NameFixPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
)

from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError, first_line
from pipeline.core.stage import StageContext
from pipeline.core.types import Json
from pipeline.core.untrusted import LOOP_SECONDS, refused
from pipeline.runtime.session import SESSION_ERRORS, run_within
from pipeline.source.inputs import random_rows
from pipeline.source.onnx_file import has_loops
from pipeline.trace.canonical import drop_inner_shapes, split_gemm, strip_metadata
from pipeline.trace.fold_norm import fold_norms
from pipeline.trace.graph import MODEL, SIGNATURE, save_model, signature
from pipeline.trace.parity import RELATIVE_TOLERANCE

_CASES = ((2, 16, 0), (3, 21, 1))
"""(batch, length, seed) of the inputs that both graphs are compared on."""
_UNCONVERTIBLE = (
    RuntimeError,
    ValueError,
    version_converter.ConvertError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
)
"""What onnx's converter raises; its own exceptions have no base in common."""


def run(context: StageContext) -> dict[str, Json]:
    """Writes `model.onnx`, `model.onnx.data` and `signature.json`. Inputs and outputs stay as they are.

    StageError if ONNX Runtime cannot run the file, it cannot be raised to the opset, or its outputs change.
    """
    source, opset = context.config["source"], context.config["opset"]
    path = Path(source["entry"])
    expected = _outputs(path, source)
    context.progress(1, 3)
    with refused(f"The graph of {path.name} cannot be worked with", "Export it again.", StageError):
        model = raised(path, opset)
        tidy(model)
        save_model(model, context.out / MODEL)
    (context.out / SIGNATURE).write_text(pretty_json(signature(model)), encoding="utf-8")
    context.progress(2, 3)
    difference = _difference(expected, _outputs(context.out / MODEL, source), path.name)
    context.progress(3, 3)
    values = sum(int(np.prod(value.shape.numpy())) for value in model.graph.initializers.values() if value.shape)
    return {"max_difference_to_source": difference, "parameters": values, "opset": model.opset_imports[""]}


def raised(path: Path, opset: int) -> ir.Model:
    """The graph of the file, converted to `opset` if its own is older."""
    model = ir.load(path)
    own = model.opset_imports.get("", opset)
    if own >= opset:
        return model
    try:
        converted = version_converter.convert_version(onnx.load(path), opset)
    except _UNCONVERTIBLE as error:
        raise StageError(
            f"{path.name} is of ONNX opset {own} and cannot be converted to {opset}: {first_line(error)}",
            f"Export it anew with opset {opset} or newer.",
        ) from error
    return ir.from_proto(converted)


def tidy(model: ir.Model) -> None:
    """In place: local functions inlined, constants and weights as initializers, Gemm -> MatMul + Add, every node and
    value named, no metadata."""
    passes = (
        InlinePass(),
        RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]  # its constructor has no annotations
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        IdentityEliminationPass(),
        NameFixPass(),
        RemoveUnusedNodesPass(),
    )
    for step in passes:
        step(model)
    fold_norms(model.graph)
    for node in list(model.graph):
        if node.op_type == "Gemm":
            split_gemm(node)
    _name_nodes(model.graph)
    drop_inner_shapes(model.graph)
    strip_metadata(model)
    model.producer_name, model.producer_version = "edge-pipeline", None
    model.graph.name = "main"
    model.ir_version = max(model.ir_version, 10)


def _name_nodes(graph: ir.Graph) -> None:
    """A node without a name is called after its first output, as plans and reports speak of nodes by name."""
    taken = {node.name for node in graph if node.name}
    for node in graph:
        if not node.name:
            node.name = f"{node.outputs[0].name}/{node.op_type}"
            while node.name in taken:
                node.name += "_"
            taken.add(node.name)


def _outputs(path: Path, source: dict[str, Any]) -> list[NDArray[Any]]:
    """All outputs on all cases, one after the other."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    loops = has_loops(path)
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return [
            np.asarray(output)
            for batch, length, seed in _CASES
            for row in random_rows(source["inputs"], 1, length, seed, batch)
            for output in run_within(session, row, LOOP_SECONDS if loops else _SECONDS)
        ]
    except SESSION_ERRORS as error:
        raise StageError(
            f"ONNX Runtime {ort.__version__} cannot run {path.name}: {first_line(error)}",
            "An operator or type that it does not have must be exported otherwise; `values` of an integer input bound "
            "what it is tried with.",
        ) from error


_SECONDS = 1800
"""Of one inference without loops, which ends some time: on one slow core, that of a network of 10^13 MACs."""


def _difference(expected: list[NDArray[Any]], actual: list[NDArray[Any]], name: str) -> float:
    worst = 0.0
    for reference, other in zip(expected, actual, strict=True):
        if not np.issubdtype(reference.dtype, np.number):
            continue
        largest = float(np.abs(reference).max(initial=0))
        difference = float(np.abs(reference.astype(np.float64) - other).max(initial=0))
        if not difference <= RELATIVE_TOLERANCE * max(largest, 1e-30):
            raise StageError(
                f"{name} gives other outputs after its conversion: they differ by {difference:.3g} "
                f"(largest {largest:.3g}).",
                "Please report the file's operators; exporting it anew with opset 21 avoids the conversion.",
            )
        worst = max(worst, difference)
    return float(f"{worst:.1e}")
