"""ONNX files as sources: vetted before anything runs. Weights are not read here."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec
from pipeline.core.untrusted import Limit, read_bytes, refused, require_file
from pipeline.graph.operators import LAYERS
from pipeline.source.axes import batch_axis, is_batch_name, written
from pipeline.source.declared import Declared, merged
from pipeline.source.onnx_checks import (
    RUNTIME_DOMAINS,
    check_domains,
    check_graph,
    check_names,
    check_tensor,
    check_type,
)
from pipeline.source.value_ranges import with_ranges
from pipeline.tasks.output_kind import Output

_LONGEST = 200
"""Characters of the name of an axis."""
QUANTIZED = re.compile(
    r".*[Qq]uantize.*|QLinear.*|QOrdered.*|.*Integer.*|MatMul(NBits|Bnb4|FpQ4)|QGemm|QAttention|QEmbedLayerNorm.*|QMoE"
)
"""Operators of ONNX and of ONNX Runtime that work with rounded numbers."""


def read_onnx(path: Path, declared: Declared = MappingProxyType({})) -> tuple[dict[str, InputSpec], str]:
    """The inputs of the ONNX file at `path`, with what a recipe has `declared` of them, and the digest of the file and
    its data files.

    UsageError if it is no ONNX file, is quantized already, its external data is missing, too short, or outside its
    folder, or what is declared does not fit it.
    """
    content = read_bytes(path, Limit.GRAPH)
    with refused(f"The file {path.name!r} is no ONNX model: it is cut short, or something else", _AGAIN):
        model = _parse(content, path.name)
        data = _external_files(model, path)
        _refuse_quantized(model, path.name)
        check_graph(model, path.name)
        check_domains(model, _nodes(model), path.name)
        _refuse_sparse(model, path.name)
        inputs = _inputs(model, path.name, declared)
    files = {file.relative_to(path.parent).as_posix(): sha256_file(file) for file in [path, *data]}
    return inputs, sha256_json({"onnx": files})


def read_graph(path: Path) -> ModelProto:
    """The graph of the ONNX file at `path`, float or quantized, without the weights in files beside it.

    UsageError if it is no ONNX file, its external data is missing, too short, or outside its folder.
    """
    with refused(f"The file {path.name!r} is no ONNX model: it is cut short, or something else", _AGAIN):
        model = _parse(read_bytes(path, Limit.GRAPH), path.name)
        _external_files(model, path)
        check_graph(model, path.name)
        check_domains(model, _nodes(model), path.name)
    return model


def check_patterns(path: Path, patterns: Iterable[str]) -> None:
    """UsageError if a pattern of --nodes-to-exclude matches no node of the file. What local functions hold gets its
    names only when they are inlined, so that files with some are not checked here."""
    model = _parse(read_bytes(path, Limit.GRAPH), path.name)
    names = [name for node in model.graph.node for name in _names_of(node)]
    for pattern in patterns if not model.functions else ():
        if not any(fnmatchcase(name, pattern) for name in names):
            weighted = [node for node in model.graph.node if node.op_type in LAYERS]
            shown = ", ".join(_names_of(node)[0] for node in weighted[:3])
            raise UsageError(
                f"--nodes-to-exclude {pattern!r} matches no node of {path.name!r}.",
                f"Names look like: {shown or 'none, as it has no weighted nodes'}. * matches anything.",
            )


def declared_outputs(path: Path) -> tuple[Output, ...]:
    """The outputs of a file that `read_onnx` accepted, as it declares them."""
    return tuple(_declared(value) for value in _parse(read_bytes(path, Limit.GRAPH), path.name).graph.output)


def metadata_of(path: Path) -> dict[str, str]:
    """`metadata_props` of a file that `read_onnx` accepted."""
    return {entry.key: entry.value for entry in _parse(read_bytes(path, Limit.GRAPH), path.name).metadata_props}


def _declared(value: ValueInfoProto) -> Output:
    tensor = value.type.tensor_type
    known = tensor.elem_type != TensorProto.UNDEFINED
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if known else ""
    sizes = tuple(axis.dim_value if axis.dim_value > 0 else None for axis in tensor.shape.dim)
    return Output(value.name, dtype, sizes if tensor.HasField("shape") else None)


def _names_of(node: NodeProto) -> list[str]:
    """What a node may be called once it is imported: a nameless one is named after its output, and a Gemm becomes a
    product and a sum."""
    name = node.name or f"{node.output[0] if node.output else ''}/{node.op_type}"
    return [name, f"{name}/product", f"{name}/sum"] if node.op_type == "Gemm" else [name]


_AGAIN = "Export or copy it again."


def _parse(content: bytes, name: str) -> ModelProto:
    model = ModelProto.FromString(content)
    if not model.graph.node or not model.opset_import:
        raise UsageError(f"The file {name!r} holds no ONNX graph.", _AGAIN)
    return model


def has_loops(path: Path) -> bool:
    """Whether a file that `read_onnx` accepted may compute for ever."""
    return any(node.op_type == "Loop" for node in _nodes(onnx.load(path, load_external_data=False)))


def data_files(path: Path) -> list[Path]:
    """The files with weights of a graph that `read_onnx` would accept, all below its folder; none of other formats."""
    return _external_files(onnx.load(path, load_external_data=False), path) if path.suffix == ".onnx" else []


def _external_files(model: ModelProto, path: Path) -> list[Path]:
    files: dict[str, Path] = {}
    for tensor in stored_tensors(model):
        stored = check_tensor(tensor, path.name)
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location, offset, length = _place(tensor, path.name)
        file = files.setdefault(location, _inside(path, location))
        end = offset + (stored if length is None else length)
        if length not in (None, stored):
            raise UsageError(
                f"{path.name!r}: the tensor {tensor.name!r} takes {stored} bytes; {length} are kept in {location!r}.",
                _AGAIN,
            )
        if require_file(file, Limit.WEIGHTS) < end:
            raise UsageError(
                f"The data file {location!r} of {path.name!r} is cut short: {tensor.name!r} ends at byte {end}, "
                f"the file has {file.stat().st_size}.",
                "Copy both files again.",
            )
    return sorted(files.values())


def _place(tensor: TensorProto, name: str) -> tuple[str, int, int | None]:
    """(file, offset, length or None for all that the tensor takes) of external data."""
    given = {entry.key: entry.value for entry in tensor.external_data}
    numbers = {}
    for key in ("offset", "length"):
        text = given.get(key, "0" if key == "offset" else "")
        if text and not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
            raise UsageError(f"{name!r}: the {key} of {tensor.name!r} in its data file is {text[:40]!r}.", _AGAIN)
        numbers[key] = int(text) if text else None
    return given.get("location", ""), numbers["offset"] or 0, numbers["length"]


_DIGITS = 18


def stored_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that may keep its values in a file, those of branches, loops and local functions included."""
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for item in node.attribute:
            yield from (item.t, *item.tensors)


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    yield model.graph
    for node in _nodes(model):
        for item in node.attribute:
            yield from (item.g, *item.graphs)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    yield from _nested(model.graph.node)
    for function in model.functions:
        yield from _nested(function.node)


def _nested(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for item in node.attribute:
            for graph in (item.g, *item.graphs):
                yield from _nested(graph.node)


def _inside(path: Path, location: str) -> Path:
    if not location or "\0" in location:
        raise UsageError(f"{path.name!r} keeps weights in a file without a proper name ({location!r}).", _AGAIN)
    file = path.parent / location
    folder = os.path.realpath(path.parent)
    if Path(location).is_absolute() or not Path(os.path.realpath(file)).is_relative_to(folder):
        raise UsageError(
            f"{path.name!r} keeps weights in {location!r}, which is outside its folder.", "Put both in one folder."
        )
    if not file.exists():
        raise UsageError(
            f"The data file {location!r} of {path.name!r} is missing.", "It belongs beside the .onnx file: copy both."
        )
    if file.samefile(path):
        raise UsageError(f"{path.name!r} names itself as its data file.", _AGAIN)
    return file


def _refuse_quantized(model: ModelProto, name: str) -> None:
    found = Counter(
        node.op_type for node in _nodes(model) if node.domain in RUNTIME_DOMAINS and QUANTIZED.fullmatch(node.op_type)
    )
    if found:
        listed = ", ".join(f"{op_type} x{count}" for op_type, count in found.most_common(3))
        raise UsageError(f"{name!r} is quantized already ({listed}).", "Give the float model that it was made from.")


def _refuse_sparse(model: ModelProto, name: str) -> None:
    found = [tensor.values.name for graph in _graphs(model) for tensor in graph.sparse_initializer]
    if found:
        raise UsageError(
            f"{name!r} stores {found[0]!r} as a sparse tensor, which cannot be compressed.",
            "Export it with dense tensors: a weight's zeros may be written out.",
        )


def _inputs(model: ModelProto, name: str, declared: Declared) -> dict[str, InputSpec]:
    constants = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in constants]
    check_names(values, name)
    if not values:
        raise UsageError(f"{name!r} has no inputs.", "A constant graph needs no compression.")
    found = with_ranges(model, {value.name: _spec(value, name) for value in values})
    specs = merged(found, declared, [_declared(value) for value in model.graph.output], name)
    if all(batch_axis(spec.shape) is None for spec in specs.values()):
        listed = ", ".join(f"{key} {written(spec.shape)}" for key, spec in specs.items())
        raise UsageError(
            f"No input of {name!r} has a batch axis of 1 or of any size: {listed}.",
            "Export it with such an axis, the first of every input: samples run one at a time and side by side.",
        )
    return specs


def _spec(value: ValueInfoProto, name: str) -> InputSpec:
    check_type(value, name, "input")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise UsageError(
            f"{name!r} does not say how many axes its input {value.name!r} has.", "Export it with an input shape."
        )
    if tensor.elem_type == TensorProto.UNDEFINED:
        raise UsageError(f"{name!r} does not say the type of its input {value.name!r}.", "Export it with input types.")
    first = "axis0" if any(is_batch_name(axis.dim_param) for axis in tensor.shape.dim) else "batch"
    sizes = [
        axis.dim_value
        if axis.HasField("dim_value") and axis.dim_value >= 0  # some converters write -1 for "any"
        else axis.dim_param.strip("?")[:_LONGEST] or (first if not place else f"axis{place}")
        for place, axis in enumerate(tensor.shape.dim)
    ]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return InputSpec.from_data({"shape": sizes, "dtype": dtype}, f"the input {value.name!r} of {name}")
