"""The small language model with one of its six layers removed: by block influence, and each of them in turn."""

from __future__ import annotations

from functools import cache, partial

import numpy as np

from benchmarks import tinylm
from benchmarks.row import Measured, Row
from pipeline.compress.edits.layers import KeepLayers
from pipeline.compress.prune.layers.config import PruneLayers

_LAYERS = 6
_STACK = "model.layers"


def by_influence() -> Measured:
    """Perplexity without the layer of the least block influence, beside the mean of removing any one at random."""
    compressed, _ = tinylm.compressed(PruneLayers(ratio=1 / _LAYERS))
    return Measured(tinylm.perplexity(compressed.model), float(np.mean([_without(layer) for layer in range(_LAYERS)])))


def without(layer: int) -> Measured:
    """Perplexity without that layer, beside the whole model's."""
    return Measured(_without(layer), tinylm.perplexity(tinylm.load()))


@cache
def _without(layer: int) -> float:
    model = tinylm.load()
    kept = tuple(index for index in range(_LAYERS) if index != layer)
    KeepLayers(stack=_STACK, keep=kept, config=("num_hidden_layers",)).apply(model)
    return tinylm.perplexity(model)


ROWS = [
    Row("tinylm.layer1.ppl", "perplexity", "mean of removing any one layer", by_influence),
    *(
        Row(f"tinylm.layer1.without_{layer}", "perplexity", "all six layers", partial(without, layer))
        for layer in range(_LAYERS)
    ),
]
