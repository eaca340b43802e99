"""Where the milliseconds and the bytes are: by operator type, and by module of the model."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import takewhile

from onnx import ModelProto, TensorProto

from pipeline.checks.weights import Graph
from pipeline.core.report_types import OperatorTime, TensorGroup
from pipeline.devices.ort_profile import NodeRecord
from pipeline.graph.dtypes import bits_of, dtype_of

_GROUPS = 12
_OTHER = "other"


def operator_times(records: Sequence[NodeRecord]) -> tuple[OperatorTime, ...]:
    """Milliseconds per inference of each operator type, the slowest first. `share` is of all nodes' time."""
    counts = Counter(record.op_type for record in records)
    times: dict[str, float] = defaultdict(float)
    for record in records:
        times[record.op_type] += record.ms
    total = math.fsum(times.values()) or 1.0
    ordered = sorted(times.items(), key=lambda item: (-item[1], item[0]))
    return tuple(OperatorTime(op_type=op, count=counts[op], ms=ms, share=ms / total) for op, ms in ordered)


def tensor_groups(*models: ModelProto) -> tuple[TensorGroup, ...]:
    """MB of the stored tensors of a model's graphs by module, the largest first, in at most 12 groups.

    A group is a module (`embeddings`) or one layer of a numbered list (`encoder.layer.0`); where that makes
    too many, layers are summed (`encoder.layer`), then the smallest go to `other`, as do tensors without a
    module in their name. `dtype` lists all number formats in the group, by bytes; packed codes count as what
    they hold (`int4`). Only types and dims are read.
    """
    graphs = [Graph(model) for model in models]
    packed = {weight.name: weight.bits for graph in graphs for weight in graph.weights}
    constants = [constant for graph in graphs for constant in graph.constants]
    groups = _grouped(constants, keep_numbers=True)
    if len(groups) > _GROUPS:
        groups = _grouped(constants, keep_numbers=False)
    total = _total([tensor for _, tensor in constants]) or 1
    ordered = sorted(_merge_smallest(groups).items(), key=lambda item: (-_total(item[1]), item[0]))
    return tuple(_group(name, members, total, packed) for name, members in ordered)


def _grouped(tensors: Sequence[tuple[str, TensorProto]], keep_numbers: bool) -> dict[str, list[TensorProto]]:
    modules = {name: name.split(".")[:-1] for name, _ in tensors}
    wrapper = len(_wrapper([module for module in modules.values() if module]))
    inner = {name: module[wrapper:] for name, module in modules.items()}
    containers = {prefix for module in inner.values() for prefix in _containers(module)}
    groups: dict[str, list[TensorProto]] = defaultdict(list)
    for name, tensor in tensors:
        groups[_label(inner[name], containers, keep_numbers)].append(tensor)
    return groups


def _wrapper(modules: list[list[str]]) -> list[str]:
    """The modules that all others are in, without the list whose numbers come next."""
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*modules, strict=False))
    shared = [level[0] for level in levels][: min(map(len, modules), default=1) - 1]
    while shared and any(module[len(shared)].isdigit() for module in modules):
        shared.pop()
    return shared


def _first_number(module: list[str]) -> int | None:
    return next((place for place, part in enumerate(module) if part.isdigit()), None)


def _containers(module: list[str]) -> list[tuple[str, ...]]:
    """`bert.encoder.layer.0.output` -> (bert), (bert, encoder), (bert, encoder, layer): what holds a list."""
    return [tuple(module[: end + 1]) for end in range(_first_number(module) or 0)]


def _label(module: list[str], containers: set[tuple[str, ...]], keep_numbers: bool) -> str:
    """Up to the first number; without one, to the first module that holds no numbered list."""
    if not module:
        return _OTHER
    number = _first_number(module)
    if number is not None:
        return ".".join(module[: number + keep_numbers]) or module[0]
    end = 1
    while end < len(module) and tuple(module[:end]) in containers:
        end += 1
    return ".".join(module[:end])


def _merge_smallest(groups: dict[str, list[TensorProto]]) -> dict[str, list[TensorProto]]:
    named = sorted(set(groups) - {_OTHER}, key=lambda name: (-_total(groups[name]), name))
    full = len(groups) > _GROUPS
    kept = named[: _GROUPS - 1] if full else named
    rest = [tensor for name, members in groups.items() if name not in kept for tensor in members]
    return {**{name: groups[name] for name in kept}, **({_OTHER: rest} if rest else {})}


def _group(name: str, members: list[TensorProto], total: int, packed: dict[str, int]) -> TensorGroup:
    formats: Counter[str] = Counter()
    for tensor in members:
        formats[_format(tensor, packed)] += _size(tensor)
    dtype = " + ".join(kind for kind, _ in sorted(formats.items(), key=lambda item: (-item[1], item[0])))
    size = _total(members)
    return TensorGroup(name=name, dtype=dtype, megabytes=size / 1e6, share=size / total)


def _format(tensor: TensorProto, packed: dict[str, int]) -> str:
    """`float32`, `int8`, ... as numpy names them; `int4` of codes in uint8."""
    bits = packed.get(tensor.name, bits_of(tensor.data_type))
    if bits < bits_of(tensor.data_type):
        return f"int{bits}"
    return "string" if tensor.data_type == TensorProto.STRING else dtype_of(tensor.data_type).name


def _total(tensors: list[TensorProto]) -> int:
    return sum(map(_size, tensors))


def _size(tensor: TensorProto) -> int:
    if tensor.data_type == TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    values: int = math.prod(tensor.dims)
    return math.ceil(values * bits_of(tensor.data_type) / 8)
