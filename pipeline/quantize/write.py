"""Stage function: turn a quantization plan into ONNX operators that ONNX Runtime has fast kernels for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from safetensors.numpy import load_file

from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext
from pipeline.core.types import Json
from pipeline.quantize.plan import LinearEntry, QuantizationPlan, TableEntry
from pipeline.quantize.quantize import CODES, PLAN
from pipeline.quantize.write_conv import round_tensor, round_weights
from pipeline.trace.graph import MODEL, add_constant, emit, load_model, name_of, replace, save_model

CONTRIB = "com.microsoft"
Arrays = dict[str, NDArray[Any]]


def run(context: StageContext) -> dict[str, Json]:
    """Writes `model.onnx` and `model.onnx.data`."""
    model = load_model(context.inputs["graph"].file(MODEL))
    plan = QuantizationPlan.model_validate(context.inputs["plan"].read_json(PLAN))
    write(model, plan, load_file(context.inputs["plan"].file(CODES)))
    save_model(model, context.out / MODEL)
    return {"operators": sorted({node.op_identifier()[1] for node in model.graph})}


def write(model: ir.Model, plan: QuantizationPlan, arrays: Arrays) -> None:
    """Replace the planned nodes in place; StageError if the plan is of another graph."""
    nodes = {node.name: node for node in model.graph}
    planned = [entry.node for entry in plan.linears] + [entry.node for entry in plan.tables]
    planned += [entry.node for entry in plan.convolutions]
    for name in planned:
        if name not in nodes:
            raise StageError(f"The quantization plan names the node {name!r}, which the graph does not have.")
    quantized = _region(model.graph, plan, arrays)  # products of one activation share its quantization
    for linear in plan.linears:
        _LINEAR[linear.method](nodes[linear.node], linear, arrays, quantized)
    for table in plan.tables:
        _TABLE[table.bits](nodes[table.node], table, arrays)
    if any(node.domain == CONTRIB for node in model.graph):
        model.opset_imports[CONTRIB] = 1


def _region(graph: ir.Graph, plan: QuantizationPlan, arrays: Arrays) -> dict[str, list[ir.Value]]:
    """Convolutions, and the activations rounded around them, by the names that their readers now see."""
    nodes = {node.name: node for node in graph}
    values = {name_of(value): value for value in [*graph.inputs, *(value for node in graph for value in node.outputs)]}
    for convolution in plan.convolutions:
        round_weights(nodes[convolution.node], convolution, arrays)
    rounded = [round_tensor(graph, values[entry.tensor], entry) for entry in plan.tensors]
    return {name_of(value): [value] for value in rounded}


def _constants(node: ir.Node, weight: str, arrays: Arrays) -> tuple[ir.Value, ir.Value]:
    assert node.graph is not None  # noqa: S101
    return tuple(  # type: ignore[return-value]
        add_constant(node.graph, f"{weight}.{part}", arrays[f"{weight}.{part}"]) for part in ("codes", "scales")
    )


def _dynamic(node: ir.Node, entry: LinearEntry, arrays: Arrays, quantized: dict[str, list[ir.Value]]) -> None:
    """DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul by both scales: ONNX Runtime fuses the last three, or
    all four, into one kernel."""
    codes, scales = _weight(node, entry, arrays, quantized)
    activation = node.inputs[0]
    assert activation is not None  # noqa: S101
    outputs = [f"{activation.name}.dynamic.{part}" for part in ("codes", "scale", "zero_point")]
    if outputs[0] not in quantized:
        quantized[outputs[0]] = emit(node, "DynamicQuantizeLinear", [activation], outputs)
    x, scale, zero_point = quantized[outputs[0]]
    name = str(node.name)
    (summed,) = emit(node, "MatMulInteger", [x, codes, zero_point], [f"{name}/int32"])
    (real,) = emit(node, "Cast", [summed], [f"{name}/float"], to=ir.DataType.FLOAT)
    (both,) = emit(node, "Mul", [scale, scales], [f"{name}/scale"])
    (result,) = emit(node, "Mul", [real, both], [f"{name}/product"])
    replace(node, result)


def _weight(
    node: ir.Node, entry: LinearEntry, arrays: Arrays, shared: dict[str, list[ir.Value]]
) -> tuple[ir.Value, ir.Value]:
    """8-bit codes [K, N] and their scales [N] or [1]."""
    return _widened(node, entry, arrays, shared) if entry.bits == 4 else _constants(node, entry.weight, arrays)


def _widened(
    node: ir.Node, entry: LinearEntry, arrays: Arrays, shared: dict[str, list[ir.Value]]
) -> tuple[ir.Value, ir.Value]:
    """8-bit codes [K, N], which ONNX Runtime makes of the 4-bit ones once, when it loads the model, and their scales
    [N]. QuantizeLinear of codes rather than DequantizeLinear: constants of that one are not folded, for QDQ's sake."""
    name, graph = entry.weight, node.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101
    scales = add_constant(graph, f"{name}.scales", arrays[f"{name}.scales"])
    key = f"{name}.widened"
    if key not in shared:
        divisors = add_constant(graph, f"{name}.divisors", arrays[f"{name}.divisors"])
        codes = _int4(graph, f"{name}.codes", arrays[f"{name}.codes"], (entry.k, entry.n))
        (real,) = emit(
            node, "Cast", [codes], [f"{name}.codes/float"], to=ir.DataType.from_numpy(arrays[f"{name}.divisors"].dtype)
        )
        form: dict[str, Any] = {"axis": 0, "block_size": entry.block_size, "output_dtype": ir.DataType.INT8}
        shared[key] = emit(node, "QuantizeLinear", [real, divisors], [key], **form)
    return shared[key][0], scales


def _int4(graph: ir.Graph, name: str, packed: NDArray[np.uint8], shape: tuple[int, int]) -> ir.Value:
    """A constant of ONNX's INT4, two values a byte."""
    value = ir.val(name, const_value=ir.PackedTensor(packed, ir.DataType.INT4, shape=ir.Shape(shape), name=name))
    graph.register_initializer(value)
    return value


def _static(node: ir.Node, entry: LinearEntry, arrays: Arrays, quantized: dict[str, list[ir.Value]]) -> None:
    """QuantizeLinear -> DequantizeLinear around the activation, DequantizeLinear on the weight (QDQ form)."""
    codes, scales = _weight(node, entry, arrays, quantized)
    activation, graph = node.inputs[0], node.graph
    assert activation is not None and graph is not None  # noqa: S101
    key = str(activation.name)
    if key not in quantized:
        scale = add_constant(graph, f"{entry.node}.activation_scale", np.float32(entry.activation_scale))  # type: ignore[arg-type]
        zero = add_constant(graph, f"{entry.node}.activation_zero_point", np.uint8(entry.activation_zero_point))  # type: ignore[arg-type]
        (rounded,) = emit(node, "QuantizeLinear", [activation, scale, zero], [f"{key}.codes"])
        quantized[key] = emit(node, "DequantizeLinear", [rounded, scale, zero], [f"{key}.rounded"])
    name = str(node.name)
    per_channel = arrays[f"{entry.weight}.scales"].size > 1
    if not per_channel:
        scales = add_constant(graph, f"{entry.weight}.scale", arrays[f"{entry.weight}.scales"].reshape(()))
    (weight,) = emit(node, "DequantizeLinear", [codes, scales], [f"{name}/weight"], axis=1)
    (result,) = emit(node, "MatMul", [quantized[key][0], weight], [f"{name}/product"])
    replace(node, result)


def _block(node: ir.Node, entry: LinearEntry, arrays: Arrays, _: dict[str, list[ir.Value]]) -> None:
    """MatMulNBits with symmetric blocks. Its scales are of the activation's type: float16 ones are cast, which ONNX
    Runtime does once, when it loads the model."""
    codes, scales = _constants(node, entry.weight, arrays)
    if entry.scale_bits == 16:
        (scales,) = emit(node, "Cast", [scales], [f"{node.name}/scales"], to=ir.DataType.FLOAT)
    activation = node.inputs[0]
    assert activation is not None  # noqa: S101
    (result,) = emit(
        node,
        "MatMulNBits",
        [activation, codes, scales],
        [f"{node.name}/product"],
        domain=CONTRIB,
        K=entry.k,
        N=entry.n,
        bits=entry.bits,
        block_size=entry.block_size,
        accuracy_level=entry.accuracy_level,
    )
    replace(node, result)


def _half(node: ir.Node, entry: LinearEntry, arrays: Arrays, _: dict[str, list[ir.Value]]) -> None:
    """A float product with weights that ONNX Runtime casts once, when it loads the model."""
    assert node.graph is not None  # noqa: S101
    codes = add_constant(node.graph, f"{entry.weight}.codes", arrays[f"{entry.weight}.codes"])
    (weight,) = emit(node, "Cast", [codes], [f"{node.name}/weight"], to=ir.DataType.FLOAT)
    (result,) = emit(node, "MatMul", [node.inputs[0], weight], [f"{node.name}/product"])  # type: ignore[list-item]
    replace(node, result)


def _table16(node: ir.Node, entry: TableEntry, arrays: Arrays) -> None:
    """Gather the float16 rows, then cast those few."""
    assert node.graph is not None and node.inputs[1] is not None  # noqa: S101
    codes = add_constant(node.graph, f"{entry.weight}.codes", arrays[f"{entry.weight}.codes"])
    (rows,) = emit(node, "Gather", [codes, node.inputs[1]], [f"{node.name}/half"])
    (result,) = emit(node, "Cast", [rows], [f"{node.name}/rows"], to=ir.DataType.FLOAT)
    replace(node, result)


def _table8(node: ir.Node, entry: TableEntry, arrays: Arrays) -> None:
    """Gather the int8 rows and their scales, then multiply."""
    codes, scales = _constants(node, entry.weight, arrays)
    indices, name = node.inputs[1], str(node.name)
    assert indices is not None  # noqa: S101
    (rows,) = emit(node, "Gather", [codes, indices], [f"{name}/codes"])
    (scale,) = emit(node, "Gather", [scales, indices], [f"{name}/scales"])
    (real,) = emit(node, "Cast", [rows], [f"{name}/float"], to=ir.DataType.FLOAT)
    (result,) = emit(node, "Mul", [real, scale], [f"{name}/rows"])
    replace(node, result)


def _table4(node: ir.Node, entry: TableEntry, arrays: Arrays) -> None:
    """GatherBlockQuantized, whose zero point is 8 where none is given. Its rows are of the scales' type, and
    lose nothing that counts in float16: 2^-11 of a value beside half a step of a 16-step scale."""
    codes, scales = _constants(node, entry.weight, arrays)
    indices = node.inputs[1]
    assert indices is not None  # noqa: S101
    (result,) = emit(
        node,
        "GatherBlockQuantized",
        [codes, indices, scales],
        [f"{node.name}/{'half' if entry.scale_bits == 16 else 'rows'}"],
        domain=CONTRIB,
        bits=4,
        block_size=entry.block_size,
        gather_axis=0,
        quantize_axis=1,
    )
    if entry.scale_bits == 16:
        (result,) = emit(node, "Cast", [result], [f"{node.name}/rows"], to=ir.DataType.FLOAT)
    replace(node, result)


_LINEAR = {"dynamic": _dynamic, "static": _static, "block": _block, "half": _half}
_TABLE = {16: _table16, 8: _table8, 4: _table4}
