"""What a bundle's weights would take in other number formats, computed from those that it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.checks.operators import BLOCKS, CONVOLUTIONS, MATMULS
from pipeline.checks.weights import Weight
from pipeline.core.report_types import Coverage
from pipeline.core.types import Scheme
from pipeline.quantize.layers import SMALL
from pipeline.quantize.schemes import SCHEMES

LOOKED_UP = ("Gather", "GatherBlockQuantized")
_EMBEDDINGS = "embeddings = 4"
_PLAIN = ("fp16", "w8", "w8a8-dynamic", "w8a8", "w4")
"""Schemes to name, what keeps most accuracy first."""


@dataclass(frozen=True)
class _Format:
    """Bits of a value that an operator class takes, scales included; 32 is float."""

    linear: float
    table: float
    conv: float

    def bits(self, weight: Weight) -> float | None:
        """None of weights that no scheme takes."""
        if weight.op_type in LOOKED_UP:
            return 32 if 4 <= self.table < 8 and weight.dims[-1] % 2 else self.table
        if weight.op_type in CONVOLUTIONS:
            return self.conv
        taken = weight.op_type in BLOCKS or (weight.op_type in MATMULS and len(weight.dims) == 2)
        return self.linear if taken and weight.values >= SMALL else None


def estimated_sizes(
    weights: Sequence[Weight], coverage: Coverage | None, scheme: Scheme, total: float
) -> dict[str, float]:
    """Megabytes of the whole bundle, which has `total` now, by what would make it smaller: `embeddings = 4`, or a
    plain scheme.

    Weights that the scheme could take and that are in float nevertheless (excluded, sensitive) stay as they are.
    """
    left = {tensor.name for tensor in coverage.left_in_float} if coverage is not None else set()
    own = _format(scheme)

    def with_format(other: _Format) -> float:
        changed = (w for w in weights if not (w.name in left and own.bits(w) not in (None, 32)))
        return total + sum(_change(weight, other) for weight in changed)

    estimates = {}
    if scheme.embeddings > 4 and any(weight.op_type in LOOKED_UP for weight in weights):
        finer = scheme.model_copy(update={"embeddings": 4})
        estimates[_EMBEDDINGS] = with_format(_Format(own.linear, _format(finer).table, own.conv))
    named: Callable[[str], Scheme] = SCHEMES.get
    return estimates | {
        f"the scheme {name}": with_format(_format(named(name))) for name in _PLAIN if name != scheme.name
    }


def _change(weight: Weight, other: _Format) -> float:
    """Megabytes more or less."""
    bits = other.bits(weight)
    return 0.0 if bits is None else weight.values * (bits - weight.bits) / 8 / 1e6


def _format(scheme: Scheme) -> _Format:
    """Scales of whole rows and columns count for nothing."""
    blocks = scheme.weights == 4 or (scheme.weights == 8 and scheme.activations == "float")
    linear = scheme.weights + (scheme.scale_bits / scheme.block_size if blocks else 0)
    table = scheme.embeddings + (scheme.scale_bits / scheme.embedding_block_size if scheme.embeddings == 4 else 0)
    takes_conv = scheme.weights == 16 or (scheme.weights == 8 and scheme.activations == "static")
    return _Format(linear, table, scheme.weights if takes_conv else 32)
