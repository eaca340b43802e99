"""Stage function: turn a quantization plan into ONNX operators that ONNX Runtime has fast kernels for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.formats import NUMBER_FORMATS
from pipeline.formats.format import Arrays, Shared
from pipeline.graph.edit import add_constant, drop_unused, import_contrib, name_of
from pipeline.numerics.affine import Float
from pipeline.quantize.cache import read_magnitudes
from pipeline.quantize.parts import Part, parts, save_parts
from pipeline.quantize.plan import QuantizationPlan, TensorEntry, read_plan
from pipeline.quantize.stored_cache import store_cache


def run(context: StageContext) -> StageMetadata:
    """Writes the graph (see `graph.files`)."""
    models = {part.spec.name: _written(part) for part in parts(context)}
    if "cache" in context.config:
        found = context.inputs.get("cache")
        for model in models.values():
            store_cache(model, context.config["cache"], read_magnitudes(found) if found else {})
    save_parts(context, models)
    return {"operators": sorted({node.op_identifier()[1] for model in models.values() for node in model.graph})}


def _written(part: Part) -> ir.Model:
    model = part.load()
    if "plan" in part.context.inputs:
        write(model, *read_plan(part.context.inputs["plan"]))
    return model


def write(model: ir.Model, plan: QuantizationPlan, arrays: Arrays) -> None:
    """Replace the planned nodes in place; StageError if the plan is of another graph."""
    graph = model.graph
    nodes = {node.name: node for node in graph.all_nodes()}
    for entry in plan.entries:
        if entry.node not in nodes:
            raise StageError(f"The quantization plan names the node {entry.node!r}, which the graph does not have.")
    values = {name_of(value): value for value in [*graph.inputs, *(value for node in graph for value in node.outputs)]}
    values |= graph.initializers
    if any(entry.input.get("ranges") == "calibrated" for entry in plan.linears):
        _tell_matrices(model, [nodes[entry.node] for entry in plan.linears])
    shared: Shared = {}
    for entry in plan.convolutions:
        NUMBER_FORMATS.get(entry.format).emit(nodes[entry.node], entry, arrays, shared)
        if (bias := arrays.get(f"{entry.node}.bias.values")) is not None:
            _read_bias(nodes[entry.node], bias)
    rounded = [round_tensor(graph, values[tensor.tensor], tensor) for tensor in plan.tensors]
    shared |= {name_of(value): [value] for value in rounded}  # by the names that their readers now see
    for entry in (*plan.linears, *plan.tables, *plan.others):
        NUMBER_FORMATS.get(entry.format).emit(nodes[entry.node], entry, arrays, shared)
    import_contrib(model)


def _read_bias(node: ir.Node, bias: Float) -> None:
    """Let a convolution that runs in float read a corrected bias."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101
    old = node.inputs[2] if len(node.inputs) > 2 else None
    node.resize_inputs(3)
    node.replace_input_with(2, add_constant(graph, f"{node.name}.bias.values", bias))
    drop_unused(graph, [] if old is None else [old])


def _tell_matrices(model: ir.Model, products: Sequence[ir.Node]) -> None:
    """Give the products that make matrices their shapes, where they can be inferred: traces drop those of values
    inside, and formats write these products in another way than those of more axes."""
    inferred = ShapeInferencePass(check_type=False, strict_mode=False)(model.clone()).model
    shapes = {node.name: node.outputs[0].shape for node in inferred.graph}
    for node in products:
        shape = shapes[node.name]
        if shape is not None and len(shape) == 2:
            node.outputs[0].shape, node.outputs[0].dtype = shape, ir.DataType.FLOAT


def round_tensor(graph: ir.Graph, value: ir.Value, entry: TensorEntry) -> ir.Value:
    """QuantizeLinear -> DequantizeLinear behind `value`, for all that read it; returns the rounded value."""
    name = entry.tensor
    scale = add_constant(graph, f"{name}.scale", np.float32(entry.scale))  # type: ignore[arg-type]
    code = np.uint8 if entry.bits == 8 else np.uint16
    zero = add_constant(graph, f"{name}.zero_point", code(entry.zero_point))  # type: ignore[arg-type]
    quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{name}.codes")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero], name=f"{name}.rounded")
    codes, rounded = quantize.outputs[0], dequantize.outputs[0]
    codes.name, rounded.name = f"{name}.codes", f"{name}.rounded"
    rounded.type, rounded.shape = value.type, value.shape
    readers = [(use.node, use.idx) for use in value.uses() if use.node is not quantize]
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])
    for node, position in readers:
        node.replace_input_with(position, rounded)
    if value.is_graph_output():  # apps ask for it by name
        place = list(graph.outputs).index(value)
        graph.outputs[place] = rounded
        value.name, rounded.name = f"{name}.exact", name
    return rounded
