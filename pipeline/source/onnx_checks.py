"""What an ONNX file must be before ONNX Runtime is given it: types, sizes and names that can be worked with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit

_AGAIN = "Export or copy it again."
_DOMAINS = ("", "ai.onnx")
"""Names of the domain of the standard operators."""
RUNTIME_DOMAINS = (
    *(*_DOMAINS, "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft"),
    *("com.microsoft.nchwc", "com.microsoft.experimental", "com.ms.internal.nhwc", "org.pytorch.aten"),
)
"""Domains of the operators that ONNX Runtime brings."""
_HALF_BYTES = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)
_QUARTER_BYTES = tuple(
    TensorProto.DataType.Value(name) for name in ("INT2", "UINT2") if name in dict(TensorProto.DataType.items())
)


def check_graph(model: ModelProto, name: str) -> None:
    """UsageError for no or an unknown opset, and for outputs that are no tensors of numbers or not there."""
    versions = [entry.version for entry in model.opset_import if entry.domain in _DOMAINS]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1 or not 0 < versions[0] <= newest:
        given = ", ".join(map(str, versions)) or "no version"
        raise UsageError(
            f"The file {name!r} asks for {given} of the standard operators; one from 1 to {newest} is known here.",
            "Export it again, with an opset that ONNX Runtime here has.",
        )
    if not model.graph.output:
        raise UsageError(f"{name!r} has no outputs.", _AGAIN)
    check_names(model.graph.output, name)
    for value in model.graph.output:
        check_type(value, name, "output")


def check_domains(model: ModelProto, nodes: Iterable[NodeProto], name: str) -> None:
    """UsageError for an operator that neither ONNX Runtime nor the file itself (as a local function) has."""
    local = {(function.domain, function.name) for function in model.functions}
    for node in nodes:
        if node.domain not in RUNTIME_DOMAINS and (node.domain, node.op_type) not in local:
            raise UsageError(
                f"{name!r} has the operator {node.op_type!r} of the domain {node.domain!r}, which ONNX Runtime does "
                "not have.",
                "Export it as standard operators, or with a local function in the file that is made of them.",
            )


def check_names(values: Iterable[ValueInfoProto], name: str) -> None:
    """UsageError for inputs or outputs that have no name of their own."""
    counts = Counter(value.name for value in values)
    if "" in counts:
        raise UsageError(f"{name!r} has an input or output without a name.", _AGAIN)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise UsageError(f"{name!r} has more than one input or output that is called {twice[0]!r}.", _AGAIN)


def check_type(value: ValueInfoProto, name: str, side: str) -> None:
    """UsageError for an input or output that is no tensor of numbers. An output without a type passes."""
    kind = value.type.WhichOneof("value")
    if kind not in (None, "tensor_type"):
        raise UsageError(
            f"The {side} {value.name!r} of {name!r} is a {kind.removesuffix('_type')}; only tensors can be compared.",
            "Export it with tensors of numbers as inputs and outputs.",
        )
    element = value.type.tensor_type.elem_type
    if element == TensorProto.STRING:
        raise UsageError(
            f"The {side} {value.name!r} of {name!r} holds texts.",
            "Export it with tensors of numbers as inputs and outputs.",
        )
    _check_element(element, f"The {side} {value.name!r} of {name!r}")


def _check_element(element: int, what: str) -> None:
    if element not in TensorProto.DataType.values():
        raise UsageError(f"{what} has the element type {element}, which ONNX does not have.", _AGAIN)


def check_tensor(tensor: TensorProto, name: str) -> int:
    """Bytes that the values of a stored tensor take; UsageError for a type or sizes that cannot be, and where fewer or
    more are stored."""
    what = f"The tensor {tensor.name!r} of {name!r}"
    _check_element(tensor.data_type, what)
    if any(size < 0 for size in tensor.dims) or len(tensor.dims) > _AXES:
        raise UsageError(f"{what} has the shape {list(tensor.dims)[:_AXES]}.", _AGAIN)
    count = math.prod(tensor.dims)
    size = _bytes(tensor.data_type, count)
    if size > Limit.WEIGHTS:
        raise UsageError(f"{what} would take {size:,} bytes; at most {Limit.WEIGHTS:,} are read.", _AGAIN)
    stored = len(tensor.raw_data)
    if tensor.HasField("raw_data") and stored and stored != size:
        raise UsageError(f"{what} takes {size} bytes; {stored} are stored.", _AGAIN)
    return size


_AXES = 32


def _bytes(kind: int, count: int) -> int:
    if kind in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0
    if kind in _HALF_BYTES:
        return (count + 1) // 2
    if kind in _QUARTER_BYTES:
        return (count + 3) // 4
    return count * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
