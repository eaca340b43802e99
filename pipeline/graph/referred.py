"""Float graphs whose matrices stay in the files of their checkpoint.

In memory such a graph has `LazyMatrix`es of float32. In its file they are the checkpoint's own tensors (ONNX's external
data: a safetensors file, an offset and a length), which operators join, widen and turn whenever they are read. So any
ONNX Runtime runs the file, and no copy in float32 lies on the disk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from pipeline.graph.edit import add_constant, drop_unused, emit, graph_of, name_of
from pipeline.graph.lazy import add_matrix, matrix_of, set_matrix
from pipeline.graph.stored_matrix import Stored, StoredMatrix, changed

SUFFIX = ".safetensors"
_NODE, _PART = "stored/", "/stored"
"""What names of the operators begin with, and those of the checkpoint's tensors end with."""
_ORDER = "constants"
"""What a graph has the names of its constants under, in their order."""
_TYPES = {"F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16"}
"""Of safetensors, as ONNX names them."""


def stored_files(graph: ir.Graph) -> list[Path]:
    """The files that lazy matrices of a graph lie in."""
    matrices = [matrix for value in graph.initializers.values() if (matrix := matrix_of(value)) is not None]
    return sorted({part.file for matrix in matrices for part in matrix.parts})


def refer(graph: ir.Graph, names: Mapping[Path, str]) -> set[ir.Value]:
    """In place: lazy matrices -> what ONNX Runtime reads. `names`: what the files that they lie in are called beside
    the graph's own. Returns the constants that lie there."""
    graph.metadata_props[_ORDER] = json.dumps(list(graph.initializers))
    places = {node: place for place, node in enumerate(graph)}
    referred: set[ir.Value] = set()
    for name, value in list(graph.initializers.items()):
        matrix = matrix_of(value)
        if matrix is None:
            continue
        tensors = [_tensor(stored, names) for stored in matrix.parts]
        if len(tensors) == 1 and not matrix.turned and tensors[0].dtype == ir.DataType.FLOAT:
            value.const_value = tensors[0]
            referred.add(value)
        else:
            del graph.initializers[name]
            referred.update(_read_parts(graph, value, matrix, tensors, places))
    return referred


def _tensor(stored: Stored, names: Mapping[Path, str]) -> ir.ExternalTensor:
    kind = ir.DataType[_TYPES[stored.dtype]]
    length = math.prod(stored.shape) * int(kind.itemsize)
    return ir.ExternalTensor(names[stored.file], stored.begin, length, kind, shape=ir.Shape(stored.shape), name="")


def _read_parts(
    graph: ir.Graph,
    value: ir.Value,
    matrix: StoredMatrix,
    tensors: Sequence[ir.ExternalTensor],
    places: Mapping[ir.Node, int],
) -> list[ir.Value]:
    """Let all that read `value`, which is no constant any more, read what is made of `tensors`; these as constants."""
    name, parts = name_of(value), []
    for number, tensor in enumerate(tensors):
        tensor.name = f"{name}{f'/{number}' if number else ''}{_PART}"
        parts.append(ir.val(tensor.name, const_value=tensor))
        graph.register_initializer(parts[-1])
    others = []
    for node, place in [(use.node, use.idx) for use in value.uses()]:
        if _looks_up(node, place) and len(parts) == 1 and not matrix.turned:
            node.replace_input_with(place, parts[0])
            _widen_rows(node, tensors[0].dtype)
        else:
            others.append((node, place))
    if others:
        made = _whole(parts, matrix, name, min((node for node, _ in others), key=lambda node: places[node]))
        made.name, made.dtype, made.shape = name, ir.DataType.FLOAT, ir.Shape(matrix.shape)
        for node, place in others:
            node.replace_input_with(place, made)
    return parts


def _looks_up(node: ir.Node, place: int) -> bool:
    return node.op_type == "Gather" and place == 0 and node.attributes.get_int("axis", 0) == 0


def _widen_rows(gather: ir.Node, stored: ir.DataType) -> None:
    """Of a table the rows that are looked up are widened, not all."""
    found = gather.outputs[0]
    cast = ir.node("Cast", [found], attributes={"to": ir.DataType.FLOAT}, name=f"{_NODE}{gather.name}")
    made = cast.outputs[0]
    made.dtype, made.shape = ir.DataType.FLOAT, found.shape
    ir.convenience.replace_all_uses_with(found, made, replace_graph_outputs=True)
    cast.replace_input_with(0, found)
    made.name, found.name, found.dtype = found.name, f"{found.name}{_PART}", stored
    graph_of(gather).insert_after(gather, cast)


def _whole(parts: Sequence[ir.Value], matrix: StoredMatrix, name: str, before: ir.Node) -> ir.Value:
    """The matrix in float32, made before a node, and not before that node's other input is there: ONNX Runtime would
    widen the matrices of all nodes first, and memory would hold all."""
    made, node = parts[0], f"{_NODE}{name}"
    other = next((read for read in before.inputs if read is not None and read.producer() is not None), None)
    if len(parts) > 1:
        (made,) = emit(before, "Concat", parts, [f"{node}/joined"], axis=0)
    if other is not None:
        made = _after(made, other, matrix, node, before)
    if matrix.parts[0].dtype != "F32":
        (made,) = emit(before, "Cast", [made], [f"{node}/wide"], to=ir.DataType.FLOAT)
    if matrix.turned:
        (made,) = emit(before, "Transpose", [made], [f"{node}/turned"], perm=range(len(matrix.shape))[::-1])
    return made


def _after(made: ir.Value, other: ir.Value, matrix: StoredMatrix, name: str, before: ir.Node) -> ir.Value:
    """`made` in the shape that it has, which is computed of the shape of `other`."""
    graph, shape = graph_of(before), matrix.shape[::-1] if matrix.turned else matrix.shape
    none = add_constant(graph, f"{_NODE}none", np.array([0], np.int64))
    own = add_constant(graph, f"{name}/shape", np.array(shape, np.int64))
    (batch,) = emit(before, "Shape", [other], [f"{name}/batch"], start=0, end=1)
    (nothing,) = emit(before, "Mul", [batch, none], [f"{name}/nothing"])
    (known,) = emit(before, "Add", [own, nothing], [f"{name}/known"])
    (made,) = emit(before, "Reshape", [made, known], [f"{name}/later"])
    return made


def require_as_before(files: Sequence[Path], path: Path) -> None:
    """StageError if a file was written after the graph `path`. One that only got another name is not, and neither is
    one whose time of writing lies in the future."""
    saved = path.stat().st_mtime_ns
    for file in files:
        found = file.stat()
        if found.st_mtime_ns > saved and found.st_ctime_ns > saved:
            raise changed(file.name)


def resolve(graph: ir.Graph) -> None:
    """In place, of a graph that was loaded: what `refer` wrote -> lazy matrices, as they were."""
    ours = [node for node in graph if str(node.name).startswith(_NODE)]
    made = _all_made(graph, ours)
    for value in [value for node in ours for value in node.outputs]:
        _resolve_readers(graph, value, made)
    for node in reversed(ours):
        graph.remove(node, safe=True)
    drop_unused(graph, [value for name, value in graph.initializers.items() if _is_ours(name)])
    for name in json.loads(graph.metadata_props.pop(_ORDER)):
        graph.register_initializer(graph.initializers.pop(name))


def _all_made(graph: ir.Graph, ours: Sequence[ir.Node]) -> dict[ir.Value, StoredMatrix]:
    """The matrices that constants and our nodes stand for; rows that are looked up are read from theirs."""
    made = {value: matrix for value in graph.initializers.values() if (matrix := _stored(value)) is not None}
    for value, matrix in made.items():
        if not _is_ours(name_of(value)):
            set_matrix(value, matrix)
    for node in ours:
        read = [made[value] for value in node.inputs if value in made]
        if read:
            made[node.outputs[0]] = _made(node, read)
        elif node.op_type == "Cast":
            _resolve_rows(node, made)
    return made


def _is_ours(name: str) -> bool:
    return name.startswith(_NODE) or name.endswith(_PART)


def _stored(value: ir.Value) -> StoredMatrix | None:
    tensor = value.const_value
    if not isinstance(tensor, ir.ExternalTensor) or not str(tensor.location).endswith(SUFFIX):
        return None
    kind = next(kind for kind, name in _TYPES.items() if name == tensor.dtype.name)
    file = Path(tensor.path)
    return StoredMatrix.of(
        Stored(file, kind, tensor.shape.numpy(), tensor.offset or 0, written=file.stat().st_mtime_ns)
    )


def _made(node: ir.Node, read: Sequence[StoredMatrix]) -> StoredMatrix:
    """What a node of `_whole` makes of matrices."""
    if node.op_type == "Concat":
        return StoredMatrix(tuple(part for matrix in read for part in matrix.parts))
    return read[0].transposed() if node.op_type == "Transpose" else read[0]


def _resolve_rows(cast: ir.Node, made: Mapping[ir.Value, StoredMatrix]) -> None:
    """Undo `_widen_rows`, but for the cast itself, which nobody reads then."""
    rows, wide = cast.inputs[0], cast.outputs[0]
    gather = None if rows is None else rows.producer()
    table = None if gather is None else gather.inputs[0]
    assert rows is not None and gather is not None and table is not None  # noqa: S101  # as `_widen_rows` made it
    ir.convenience.replace_all_uses_with(wide, rows, replace_graph_outputs=True)
    cast.replace_input_with(0, None)
    rows.dtype, rows.shape = ir.DataType.FLOAT, wide.shape
    rows.name, wide.name = wide.name, cast.name
    graph = graph_of(gather)
    gather.replace_input_with(0, add_matrix(graph, name_of(table).removesuffix(_PART), made[table]))


def _resolve_readers(graph: ir.Graph, value: ir.Value, made: Mapping[ir.Value, StoredMatrix]) -> None:
    """Let nodes of the graph itself that read `value`, the outcome of `_whole`, read a lazy matrix of its name."""
    readers = [(use.node, use.idx) for use in value.uses() if not str(use.node.name).startswith(_NODE)]
    name = name_of(value)
    if readers:
        value.name = f"{_NODE}{name}"
        for node, place in readers:
            node.replace_input_with(place, add_matrix(graph, name, made[value]))
