"""A traced graph made clean: named after the model's modules, one form for every linear layer, no traces of the
machine it was made on."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from pipeline.core.model_spec import InputSpec
from pipeline.graph.edit import add_constant, constant, drop_unused, emit, is_constant, name_of, replace
from pipeline.graph.lazy import matrix_of
from pipeline.trace.broadcast import write_out_broadcasts
from pipeline.trace.fold_norm import fold_norms
from pipeline.trace.fold_weights import fold_tied_tables, fold_weights
from pipeline.trace.fuse_attention import OPSET, fuse_attentions
from pipeline.trace.fuse_hard_sigmoid import fuse_hard_sigmoids
from pipeline.trace.pack_attention import Alike, always_alike, pack_attention
from pipeline.trace.simplify_gather_nd import simplify_gathers
from pipeline.trace.split_prelu import split_prelus

_SCOPES = "pkg.torch.onnx.name_scopes"
_AXES = ("batch", "sequence")
Axes = Mapping[str, tuple[str, ...]]
_AS_PLACED: Axes = MappingProxyType({})


def canonicalize(
    model: ir.Model, prefix: str, fuse: bool = True, axes: Axes = _AS_PLACED, alike: Alike = always_alike
) -> None:
    """In place: gathers of everything -> Unsqueeze, written-out hard-sigmoids -> HardSigmoid, PRelu in faster
    operators, written-out attention -> Attention if `fuse` and the opset has it, what ONNX Runtime does not broadcast
    written out, factors and shifts of channels folded into the convolution before, Gemm -> MatMul + Add, name nodes and
    weights after modules (without `prefix`), name the dynamic axes (after `axes`, by input), one product for the
    queries, keys and values of attention over a cache (if their modules are `alike`), and drop metadata, which holds
    stack traces with file paths."""
    graph = model.graph
    changed = simplify_gathers(graph) + fuse_hard_sigmoids(graph) + split_prelus(graph)
    if model.opset_imports[""] >= OPSET:
        changed += write_out_broadcasts(graph)
        changed += fuse_attentions(graph) if fuse else 0
    if changed:
        RemoveUnusedNodesPass()(model)
    name_axes(graph, axes)
    fold_norms(graph)
    fold_weights(graph)
    fold_tied_tables(graph)
    for node in list(graph):
        if node.op_type == "Gemm":
            split_gemm(node)
    for node in graph:
        name_after_module(node, prefix)
    name_parameters(graph, prefix)
    pack_attention(graph, alike)
    strip_metadata(model)
    model.producer_name, model.producer_version = "edge-pipeline", None
    graph.name = "main"


def name_axes(graph: ir.Graph, axes: Axes = _AS_PLACED) -> None:
    """Rename the tracer's symbols (`s18`) as `axes` says by input, or else to `batch` and `sequence`, by their place in
    the inputs."""
    names: dict[str | None, str] = {}
    for value in graph.inputs:
        for axis, dimension in enumerate(value.shape or ()):
            if isinstance(dimension, ir.SymbolicDim):
                own = axes.get(name_of(value), _AXES)
                names.setdefault(dimension.value, own[axis] if axis < len(own) else f"axis{axis}")
    for value in [*graph.inputs, *graph.outputs]:
        value.shape = _renamed(value.shape, names)
    drop_inner_shapes(graph)


def drop_inner_shapes(graph: ir.Graph) -> None:
    """They speak of the tracer's symbols, and ONNX Runtime infers them anyway."""
    for node in graph:
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None


def _shape(specs: Mapping[str, InputSpec], value: ir.Value) -> tuple[int | str, ...]:
    spec = specs.get(name_of(value))
    return spec.shape if spec else ()


def rename_axes(graph: ir.Graph, specs: Mapping[str, InputSpec]) -> None:
    """Give the dynamic axes of inputs the names that their source declared."""
    names: dict[str | None, str] = {}
    for value in graph.inputs:
        for axis, declared in zip(value.shape or (), _shape(specs, value), strict=False):
            if isinstance(axis, ir.SymbolicDim) and isinstance(declared, str):
                names[axis.value] = declared
    for value in [*graph.inputs, *graph.outputs]:
        value.shape = _renamed(value.shape, names)


def _renamed(shape: ir.Shape | None, names: dict[str | None, str]) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape(names.get(axis.value, axis.value) if isinstance(axis, ir.SymbolicDim) else axis for axis in shape)


def split_gemm(node: ir.Node) -> None:
    """Gemm(a, B, c) with constant B -> MatMul(a, B') + c, so that quantization meets one form."""
    weight = constant(node.inputs[1])
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    scaled = attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0
    if weight is None or scaled or attributes.get("transA", 0):
        return
    left, right, *bias = node.inputs
    assert left is not None and right is not None and node.graph is not None  # noqa: S101
    array = weight.T if attributes.get("transB", 0) else weight
    straight = add_constant(node.graph, f"{right.name}.transposed", array)
    (product,) = emit(node, "MatMul", [left, straight], [f"{node.name}/product"])
    product.producer().metadata_props.update(node.metadata_props)  # type: ignore[union-attr]
    if bias and bias[0] is not None:
        (product,) = emit(node, "Add", [product, bias[0]], [f"{node.name}/sum"])
        product.producer().metadata_props.update(node.metadata_props)  # type: ignore[union-attr]
    replace(node, product)


def name_after_module(node: ir.Node, prefix: str) -> None:
    """`encoder.layer.0.output.dense/MatMul` instead of `node_MatMul_107`; weights likewise."""
    module = module_of(node, prefix)
    if not module:
        return
    node.name = _unique(node, f"{module}/{node.op_type}")
    if node.op_type == "MatMul" and is_constant(node.inputs[1]):
        _rename(node.inputs[1], f"{module}.weight")


def module_of(node: ir.Node, prefix: str) -> str:
    """The module that the tracer recorded for a node, or an empty string."""
    scopes = node.metadata_props.get(_SCOPES)
    if not scopes:
        return ""
    modules = [scope for scope in ast.literal_eval(scopes)[:-1] if scope and not scope.startswith("_")]
    return modules[-1].removeprefix(prefix) if modules else ""


def _unique(node: ir.Node, name: str) -> str:
    assert node.graph is not None  # noqa: S101
    taken = node.graph.meta.setdefault("names", {})
    taken[name] = taken.get(name, 0) + 1
    return name if taken[name] == 1 else f"{name}_{taken[name] - 1}"


def _rename(value: ir.Value | None, name: str) -> None:
    assert value is not None and value.graph is not None  # noqa: S101
    graph = value.graph
    if value.name == name or name in graph.initializers:
        return
    del graph.initializers[name_of(value)]
    value.name = name
    if value.const_value is not None:
        value.const_value.name = name
    graph.register_initializer(value)


def name_parameters(graph: ir.Graph, prefix: str) -> None:
    """Parameters that kept their module names lose the wrapper's prefix; unread ones go."""
    for value in list(graph.initializers.values()):
        drop_unused(graph, [value])
        name = name_of(value)
        if name in graph.initializers and prefix and name.startswith(prefix):
            _rename(value, name.removeprefix(prefix))


def strip_metadata(model: ir.Model) -> None:
    """Drop what the tracer noted: stack traces, module classes, its own version."""
    model.metadata_props.clear()
    model.doc_string = None
    graph = model.graph
    graph.metadata_props.clear()
    graph.doc_string = None
    values = [*graph.inputs, *graph.initializers.values()]
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
        values.extend(node.outputs)
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None
    for value in graph.initializers.values():
        if value.const_value is not None and matrix_of(value) is None:
            # not ascontiguousarray: it makes a vector of a scalar
            value.const_value = ir.tensor(np.asarray(value.const_value.numpy(), order="C"), name=value.name)
