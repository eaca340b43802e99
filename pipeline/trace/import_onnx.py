"""Stage function: a given ONNX file -> the float graph that the later stages start from, proven equal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import version_converter
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    NameFixPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
)

from pipeline.core.errors import StageError, first_line
from pipeline.core.model_spec import InputSpec
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.untrusted import LOOP_SECONDS, refused
from pipeline.data.inputs import random_rows
from pipeline.data.samples import PROOF, Row, open_samples
from pipeline.graph.edit import name_of, replace
from pipeline.graph.files import MODEL, graph_file, save_graphs
from pipeline.runtime.session import SESSION_ERRORS, open_given, run_within
from pipeline.source.onnx_file import has_loops, metadata_of
from pipeline.trace.canonical import drop_inner_shapes, split_gemm, strip_metadata
from pipeline.trace.compare import RELATIVE_TOLERANCE, compare, shape_of
from pipeline.trace.fold_norm import fold_norms
from pipeline.trace.fold_weights import fold_computed_weights
from pipeline.trace.fuse_hard_sigmoid import fuse_hard_sigmoids
from pipeline.trace.hoist_invariants import hoist_invariants
from pipeline.trace.resolve_branches import resolve_branches
from pipeline.trace.split_prelu import split_prelus
from pipeline.trace.widen import HALF, widen

_FIRST = 2
_CASES = ((2, 16, 0), (3, 21, 1))
"""(batch, length, seed) of made-up inputs."""
_UNCONVERTIBLE = (
    RuntimeError,
    ValueError,
    version_converter.ConvertError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
)
"""What onnx's converter raises; its own exceptions have no base in common."""


def run(context: StageContext) -> StageMetadata:
    """Writes the graph (see `graph.files`). Inputs and outputs stay as they are.

    StageError if ONNX Runtime cannot run the file, it cannot be raised to the opset, or its outputs change.
    """
    spec, opset = context.model, context.config["opset"]
    path, proofs = Path(spec.entry), _proofs(context)
    expected = _outputs(path, proofs, path.name)
    context.progress(1, 3)
    with refused(f"The graph of {path.name} cannot be worked with", "Export it again.", StageError):
        model, widened = raised(path, opset)
        model = resolve_branches(model)
        tidy(model)
        model.metadata_props.update(metadata_of(path))  # alphabets, class names, sizes: an app reads them there
        name_axes(model.graph, spec.inputs)
        fold_inputs(model.graph, spec.inputs)
    save_graphs(context.out, {MODEL: model})
    context.progress(2, 3)
    actual = _outputs(graph_file(context.out), proofs, f"{path.name} after its conversion")
    tolerance = HALF_TOLERANCE if widened & HALF else RELATIVE_TOLERANCE
    difference = _difference(expected, actual, proofs, path.name, tolerance)
    context.progress(3, 3)
    graphs = [model.graph, *model.graph.subgraphs()]
    weights = [value for graph in graphs for value in graph.initializers.values()]
    values = sum(value.const_value.size for value in weights if value.const_value is not None)
    return {
        "max_difference_to_source": difference,
        "parameters": values,
        "opset": model.opset_imports[""],
        "notes": [_WIDENED.format(kinds=", ".join(sorted(kind.name.lower() for kind in widened)))] if widened else [],
    }


_WIDENED = "The file's weights are {kinds}: they are computed, rounded and compared with as float32."
HALF_TOLERANCE = 2e-2
"""Of the largest output: half precision keeps 8 to 11 bits, and rounds after every operator."""


def raised(path: Path, opset: int) -> tuple[ir.Model, frozenset[ir.DataType]]:
    """The graph of the file, converted to `opset` if its own is older, and the float types that weights had where they
    are float32 now (see `widen`). Local functions are inlined, as the converter forgets them, and initializers are no
    inputs, which the first files listed them among."""
    model = ir.load(path)
    _settle(model)
    widened = widen(model)
    own = model.opset_imports.get("", opset)
    if own >= opset:
        return model, widened
    ir.external_data.load_to_model(model)
    try:
        converted = version_converter.convert_version(ir.to_proto(model), opset)
    except _UNCONVERTIBLE as error:
        raise StageError(
            f"{path.name} is of ONNX opset {own} and cannot be converted to {opset}: {first_line(error)}",
            f"Export it anew with opset {opset} or newer.",
        ) from error
    return ir.from_proto(converted), widened


def _settle(model: ir.Model) -> None:
    for step in (InlinePass(), RemoveUnusedFunctionsPass()):  # type: ignore[no-untyped-call]  # see `tidy`
        step(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for value in list(model.graph.inputs):
        if value.is_initializer():
            model.graph.inputs.remove(value)
    model.ir_version = max(model.ir_version, 8)


def tidy(model: ir.Model) -> None:
    """In place: local functions inlined, constants and weights as initializers, values that
    loops carry round unchanged read from outside, PRelu in faster operators, written-out
    hard-sigmoids fused, factors and shifts of channels folded into the convolution before, Gemm -> MatMul + Add, every
    node and value named, no metadata."""
    passes = (
        InlinePass(),
        RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]  # its constructor has no annotations
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        NameFixPass(),
        RemoveUnusedNodesPass(),
    )
    for step in passes:
        step(model)
    hoist_invariants(model.graph)
    for graph in [model.graph, *model.graph.subgraphs()]:
        _drop_identities(graph)
        fold_computed_weights(graph)
    split_prelus(model.graph)
    fuse_hard_sigmoids(model.graph)
    RemoveUnusedNodesPass()(model)
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


def name_axes(graph: ir.Graph, specs: Mapping[str, InputSpec]) -> None:
    """In place: the inputs have the sizes and names of the source's `specs`, and an output's size that is written as -1
    gets a name."""
    for value in graph.inputs:
        value.shape = ir.Shape(specs[name_of(value)].shape)
    for value in graph.outputs:
        sizes = [] if value.shape is None else list(value.shape)
        for place, size in enumerate(sizes):
            if isinstance(size, int) and size < 0:
                sizes[place] = ir.SymbolicDim(f"axis{place}" if place else "batch")
        value.shape = None if value.shape is None else ir.Shape(sizes)


def fold_inputs(graph: ir.Graph, specs: Mapping[str, InputSpec]) -> None:
    """In place: inputs that are to be constants are initializers."""
    for value in list(graph.inputs):
        spec = specs[name_of(value)]
        if spec.fold:
            graph.inputs.remove(value)
            value.const_value = ir.tensor(spec.filled({}), name=value.name)
            graph.register_initializer(value)


def _drop_identities(graph: ir.Graph) -> None:
    """All but those that give a body or the graph, as an output, what it does not compute itself or gives already."""
    for node in list(graph):
        value = node.inputs[0] if node.op_type == "Identity" and not node.domain else None
        if value is None:
            continue
        inner = value.producer() is not None and value.graph is graph and not value.is_graph_output()
        if inner or not node.outputs[0].is_graph_output():
            replace(node, value)


def _name_nodes(graph: ir.Graph) -> None:
    """A node without a name is called after its first output, and of those in several bodies with one name all but the
    first get another: plans and reports speak of nodes by name."""
    taken = {node.name for node in graph.all_nodes() if node.name}
    seen: set[str] = set()
    for node in graph.all_nodes():
        name = node.name or f"{node.outputs[0].name}/{node.op_type}"
        while name in seen or (name in taken and name != node.name):
            name += "_"
        seen.add(name)
        node.name = name


def _proofs(context: StageContext) -> list[tuple[str, Row]]:
    """(title, inputs) that both graphs are compared on: the shortest and the longest of the given samples and the first
    ones, or made-up inputs of two batches and lengths where there are none."""
    spec = context.model
    if PROOF not in context.inputs:
        specs = spec.inputs
        rows = [row for batch, length, seed in _CASES for row in random_rows(specs, 1, length, seed, batch)]
        return [(f"made-up inputs ({shape_of(row)})", row) for row in rows]
    samples = open_samples(context.inputs[PROOF].path / "0")
    names = list(spec.inputs)
    by_size = sorted(range(len(samples)), key=lambda place: sum(map(math.prod, samples.shapes(place, names))))
    chosen = sorted({by_size[0], by_size[-1], *range(min(_FIRST, len(samples)))})
    return [(f"sample {place + 1}", {name: samples[place][name] for name in names}) for place in chosen]


_SECONDS = 1800
"""Of one inference without loops, which ends some time: on one slow core, that of a network of 10^13 MACs."""


def _outputs(path: Path, proofs: list[tuple[str, Row]], name: str) -> list[list[NDArray[Any]]]:
    """The outputs of each proof."""
    session, seconds = open_given(path), LOOP_SECONDS if has_loops(path) else _SECONDS
    taken = [entry.name for entry in session.get_inputs()]  # a constant is none any more
    outputs = []
    for title, row in proofs:
        try:
            fed = {name: row[name] for name in taken}
            outputs.append([np.asarray(output) for output in run_within(session, fed, seconds)])
        except SESSION_ERRORS as error:
            raise StageError(
                f"ONNX Runtime {ort.__version__} cannot run {name} on {title}: {first_line(error)}",
                "Give real inputs as .npz with --eval-data: what is made up may be what the model does not take."
                if title.startswith("made-up")
                else "Correct the data, or export the operator that it names otherwise.",
            ) from error
    return outputs


def _difference(
    expected: list[list[NDArray[Any]]],
    actual: list[list[NDArray[Any]]],
    proofs: list[tuple[str, Row]],
    name: str,
    tolerance: float = RELATIVE_TOLERANCE,
) -> float:
    worst = 0.0
    for (title, _), references, others in zip(proofs, expected, actual, strict=True):
        for reference, other in zip(references, others, strict=True):
            difference, largest = compare(reference, other)
            if not difference <= tolerance * largest:
                raise StageError(
                    f"{name} gives other outputs after its conversion: they differ by {difference:.3g} "
                    f"(largest {largest:.3g}) on {title}.",
                    "Please report the file's operators; exporting it anew with opset 21 avoids the conversion.",
                )
            worst = max(worst, difference)
    return float(f"{worst:.1e}")
