"""What a bundle's weights would take in other number formats, computed from those that it has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from pipeline.checks.weights import Weight
from pipeline.core.types import Scheme
from pipeline.formats.format import TensorClass
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.operators import BLOCKS, CONVOLUTIONS, MATMULS, RECURRENT, TRANSPOSED
from pipeline.quantize.layers import SMALL
from pipeline.quantize.schemes import SCHEMES

LOOKED_UP = ("Gather", "GatherBlockQuantized")
_EMBEDDINGS = "embeddings = 4"
_PLAIN = ("fp16", "w8", "w8a8-dynamic", "w8a8", "w4")
"""Schemes to name, what keeps most accuracy first."""
_ALL: tuple[TensorClass, ...] = ("linear", "table", "conv", "other")


def estimated_sizes(
    weights: Sequence[Weight], left_in_float: Collection[str], scheme: Scheme, total: float
) -> dict[str, float]:
    """Megabytes of the whole bundle, which has `total` now, by what would make it smaller: `embeddings = 4`, or a
    plain scheme.

    Weights that the scheme could take and that are `left_in_float` nevertheless (excluded, sensitive) stay as they are.
    """
    own = SchemeFormats(scheme)
    free = [weight for weight in weights if not (weight.name in left_in_float and _bits(weight, own) not in (None, 32))]

    def with_formats(other: Scheme, classes: Collection[TensorClass] = _ALL) -> float:
        formats = SchemeFormats(other)
        return total + sum(_change(weight, formats) for weight in free if _class_of(weight) in classes)

    estimates = {}
    if own.classes["table"].code_bits > 4 and any(weight.op_type in LOOKED_UP for weight in weights):
        estimates[_EMBEDDINGS] = with_formats(scheme.model_copy(update={"embeddings": 4, "overrides": ()}), ["table"])
    named: Callable[[str], Scheme] = SCHEMES.get
    return estimates | {f"the scheme {name}": with_formats(named(name)) for name in _PLAIN if name != scheme.name}


def _class_of(weight: Weight) -> TensorClass | None:
    """None of weights that no scheme takes."""
    if weight.op_type in LOOKED_UP:
        return "table"
    if weight.op_type in CONVOLUTIONS:
        return "conv"
    if weight.op_type in (*RECURRENT, *TRANSPOSED):
        return "other"
    taken = weight.op_type in BLOCKS or (weight.op_type in MATMULS and len(weight.dims) == 2)
    return "linear" if taken and weight.values >= SMALL else None


def _bits(weight: Weight, formats: SchemeFormats) -> float | None:
    """Of a value, scales included; None of weights that no scheme takes."""
    op = _class_of(weight)
    return None if op is None else formats.classes[op].bits(op, weight.dims)


def _change(weight: Weight, formats: SchemeFormats) -> float:
    """Megabytes more or less."""
    bits = _bits(weight, formats)
    return 0.0 if bits is None else weight.values * (bits - weight.bits) / 8 / 1e6
