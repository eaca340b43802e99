"""Which release of ONNX Runtime is the first to load a graph: by its opset, its format version and its operators.

Measured with the wheels of PyPI from 1.16 to 1.32 (`python -m benchmarks.releases`): the newest opset and format
version that each loads, and the CPU kernels that each registers for types that the operator's definition allows.
QuantizeLinear of opset 23 is why opsets alone do not tell: 1.23 knows that opset, but its kernels fit no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import onnx
from pydantic import Field

from pipeline.core.types import StrictModel
from pipeline.graph.onnx_ir import ir

Release: TypeAlias = tuple[int, int]
"""Major and minor number."""

ONNX, CONTRIB = "ai.onnx", "com.microsoft"
OLDEST: Release = (1, 16)
"""The oldest that was measured: what it loads, older ones may load too."""
OPSETS: dict[Release, int] = {
    **{(1, 16): 19, (1, 17): 20, (1, 18): 21, (1, 21): 22, (1, 23): 23, (1, 24): 25, (1, 25): 26, (1, 32): 28},
}
"""Release -> the newest opset of ai.onnx that it loads, where that is newer than what the one before loads."""
FORMATS: dict[Release, int] = {(1, 16): 9, (1, 18): 10, (1, 23): 11, (1, 24): 13, (1, 32): 14}
"""Release -> the newest format version (`ir_version`) that it loads."""
LATE: dict[tuple[str, int], Release] = {
    ("Gelu", 20): (1, 18),
    ("QuantizeLinear", 23): (1, 24),
    ("DeformConv", 19): (1, 25),
    ("DeformConv", 22): (1, 25),
    ("TensorScatter", 24): (1, 25),
}
"""Operator and the opset that it is defined in -> the first release that runs it, where it is later than the opset."""
_CONTRIBUTED: dict[Release, tuple[str, ...]] = {
    (1, 17): ("WhisperBeamSearch",),
    (1, 18): ("GroupQueryAttention",),
    (1, 19): ("SparseAttention",),
    (1, 20): ("DecoderMaskedMultiHeadAttention", "DynamicTimeWarping", "GatherBlockQuantized", "UnfoldTensor"),
    (1, 23): ("MoE", "QMoE"),
    (1, 25): ("CausalConvWithState", "LinearAttention"),
    (1, 29): ("MRotaryEmbedding",),
    (1, 30): ("EngramGate", "GatedAdd", "GatedRMSNorm", "LinearAttentionGate", "NGramHashMapping"),
    (1, 31): (
        *("BranchwiseRMSNorm", "HyperConnectionPostMix", "HyperConnectionPreMix", "ScaledSiLU"),
        "VarlenNGramHashMapping",
    ),
    (1, 32): ("GatedDeltaNet", "GatherPacked", "MoEGroupRouter", "VarlenCausalConvWithState"),
}
KEPT: dict[int, Release] = {16: (1, 19), 8: (1, 27)}
"""Bits of keys and values -> the first release that attends to them: 1.25 and 1.26 load such graphs of 8, and fail."""
CONTRIBUTED = {name: release for release, names in _CONTRIBUTED.items() for name in names}
"""Operator of com.microsoft -> the first release that runs it on CPUs, where `OLDEST` does not."""


class Requirements(StrictModel):
    """What an app's ONNX Runtime must know to load a bundle's graphs.

    Attributes:
        onnxruntime: The first release that does, as "1.24".
        reason: What of the graphs older ones do not know.
        ir_version: The newest format version among the graphs.
        opsets: Domain -> the newest opset among the graphs.
        operators: Domain -> the operators that the graphs use, for a build of ONNX Runtime with these alone.
    """

    onnxruntime: str = Field(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}$")
    reason: str
    ir_version: int
    opsets: dict[str, int]
    operators: dict[str, tuple[str, ...]]

    @property
    def release(self) -> Release:
        return parse_release(self.onnxruntime)


def parse_release(text: str) -> Release:
    """Major and minor number of "1.24" or "1.24.4"; ValueError if it is neither."""
    major, minor, *_ = text.split(".")
    return int(major), int(minor)


def spell(release: Release) -> str:
    """The release as people write it."""
    return f"{release[0]}.{release[1]}"


def requirements(models: Iterable[ir.Model]) -> Requirements:
    """What loads all of the graphs."""
    given = list(models)
    reasons = {reason: release for model in given for reason, release in _reasons(model)}
    newest = max(reasons.values(), default=OLDEST)
    why = [reason for reason, release in reasons.items() if release == newest > OLDEST]
    return Requirements(
        onnxruntime=spell(newest),
        reason=", ".join(why) or "the oldest that was tried",
        ir_version=max(model.ir_version for model in given),
        opsets={
            domain: max(model.opset_imports.get(name, 0) for model in given)
            for name in sorted({name for model in given for name in model.opset_imports})
            for domain in [name or ONNX]
        },
        operators=_operators(given),
    )


def newest_opset(release: Release) -> int:
    """The newest opset that the release loads and can round activations in; 0 for one before `OLDEST`."""
    known = max((opset for first, opset in OPSETS.items() if first <= release), default=0)
    late = [opset for (name, opset), first in LATE.items() if name == "QuantizeLinear" and first > release]
    return min([known, *(opset - 1 for opset in late)])


def first_release(opset: int) -> Release:
    """The first release for which `newest_opset` is `opset` or a newer one."""
    return next(release for release in sorted({*OPSETS, *LATE.values()}) if newest_opset(release) >= opset)


def _reasons(model: ir.Model) -> Iterator[tuple[str, Release]]:
    """What of a graph asks for which release."""
    opset = model.opset_imports.get("", 0)
    yield f"opset {opset}", _first(OPSETS, opset)
    yield f"format version {model.ir_version}", _first(FORMATS, model.ir_version)
    for node in _nodes(model):
        if node.domain == CONTRIB:
            yield node.op_type, CONTRIBUTED.get(node.op_type, OLDEST)
            yield from _attributes(node)
        elif node.domain == "":
            defined = onnx.defs.get_schema(node.op_type, opset).since_version
            yield f"{node.op_type} of opset {defined}", LATE.get((node.op_type, defined), OLDEST)


def _attributes(node: ir.Node) -> Iterator[tuple[str, Release]]:
    """What the settings of an operator ask for. In 1.22, products of 8-bit blocks run with `accuracy_level` 4 alone."""
    bits = node.attributes.get_int("bits", 4)
    if node.op_type == "MatMulNBits" and bits == 8:
        whole = node.attributes.get_int("accuracy_level", 0) == 4
        yield "MatMulNBits of 8 bits", (1, 22) if whole else (1, 23)
    elif node.op_type == "MatMulNBits" and bits == 2:
        yield "MatMulNBits of 2 bits", (1, 24)
    elif node.op_type == "GatherBlockQuantized" and "bits" in node.attributes:
        yield "GatherBlockQuantized with packed codes", (1, 23)
    elif node.op_type == "GroupQueryAttention":
        yield from _kept(node)


def _kept(node: ir.Node) -> Iterator[tuple[str, Release]]:
    """What attention asks for over keys and values that are no float32."""
    if "kv_cache_bit_width" in node.attributes:
        yield "GroupQueryAttention over INT8 keys and values", KEPT[8]
    if any(value is not None and value.dtype == ir.DataType.FLOAT16 for value in node.inputs):
        yield "GroupQueryAttention over float16", KEPT[16]


def _first(newest: dict[Release, int], wanted: int) -> Release:
    """The first release with `wanted`; the next one after all that are known if none has it."""
    last = max(newest)
    return next((release for release, has in sorted(newest.items()) if has >= wanted), (last[0], last[1] + 1))


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _operators(models: Iterable[ir.Model]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for model in models:
        own: set[Any] = {(domain, name) for domain, name, _ in model.functions}
        for node in _nodes(model):
            if (node.domain, node.op_type) not in own:
                found.setdefault(node.domain or ONNX, set()).add(node.op_type)
    return {domain: tuple(sorted(found[domain])) for domain in sorted(found)}
