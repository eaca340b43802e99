"""Half of the small language model's weights set to zero: what each method costs in perplexity, all in one run."""

from __future__ import annotations

from functools import cache, partial
from types import SimpleNamespace
from typing import Any

from benchmarks import tinylm
from benchmarks.row import Measured, Row
from pipeline.compress.sparsify.config import Sparsify
from pipeline.compress.sparsify.layers import sparse_layers
from pipeline.compress.sparsify.methods import by_inputs, by_magnitude
from pipeline.core.types import silent

_WINDOWS, _BATCH = 256, 16
_SPARSITY = 0.5


def ratio(**config: Any) -> Measured:
    """The increase of perplexity over float by that of magnitude, which stands beside it."""
    magnitude = _increase(method="magnitude")
    return Measured(_increase(**config) / magnitude, magnitude)


@cache
def _increase(**config: Any) -> float:
    return _perplexity(**config) - _float()


@cache
def _float() -> float:
    return tinylm.perplexity(tinylm.load())


def _perplexity(**config: Any) -> float:
    """With the layers of all methods the same: all Linear layers but the head, which is tied to the embedding."""
    model, settings = tinylm.load(), Sparsify(sparsity=_SPARSITY, **config)
    layers, _ = sparse_layers(model, settings)
    if settings.method == "magnitude":
        by_magnitude(layers, settings)
    else:
        windows = tinylm.calibration(_WINDOWS).split(_BATCH)
        seen = SimpleNamespace(
            forward=lambda batch: model(**batch),
            batches=lambda: ({"input_ids": part} for part in windows),
            progress=silent,
        )
        by_inputs(layers, settings, seen, False)
    return tinylm.perplexity(model)


_BESIDE = "perplexity increase of magnitude, same layers (same run)"
ROWS = [
    Row("tinylm.sparse50.ratio", "share", _BESIDE, partial(ratio, method="sparsegpt")),
    Row("tinylm.sparse50.paper_ratio", "share", _BESIDE, partial(ratio, method="sparsegpt", sweeps=0)),
    Row("tinylm.sparse50.wanda_ratio", "share", _BESIDE, partial(ratio, method="wanda")),
]
