"""Stage function: which product gets 2, 4 or 8 bits, so that they have the bits that the scheme allows on average and
the model's output loses least. What each loses is measured by rounding it alone.

That losses add up is an assumption: it holds as long as each is small (Dong et al., HAWQ-V2, arXiv 1911.03852, sec. 3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Scheme
from pipeline.data.samples import Samples, open_samples
from pipeline.formats.format import Layer
from pipeline.formats.scheme import SchemeFormats
from pipeline.numerics.allocation import Options, allocate
from pipeline.numerics.noise import power
from pipeline.quantize.heads import formats_of
from pipeline.quantize.layers import read_layers
from pipeline.quantize.parts import Part, for_each
from pipeline.quantize.quantize import ALLOCATED, calibrated
from pipeline.quantize.trial import Trial

_SAMPLES = 32
_HELD = 2**27
"""Bytes of the float model's outputs that are kept to compare with."""


def run(context: StageContext) -> StageMetadata:
    """Writes `formats.json`: node -> number format. StageError if even the fewest bits are more than allowed, or no
    product is free."""
    scheme = Scheme.model_validate(context.config["scheme"])
    return for_each(context, lambda part: _allocated(part, scheme))


def _allocated(part: Part, scheme: Scheme) -> StageMetadata:
    graph = part.load().graph
    every, _ = read_layers(part.context.inputs["layers"], graph)
    formats = formats_of(scheme, every)
    names = formats.offered
    layers = [layer for layer in every if layer.op == "linear" and not formats.is_decided(str(layer.node.name))]
    trial = Trial(part, calibrated(part.context, graph, every, formats))
    measure = _Measure(part, trial)
    options = [_options(layer, names, scheme, measure, len(names) * len(layers)) for layer in layers]
    values = sum(layer.size for layer in layers)
    try:
        chosen = allocate(options, int(formats.average_bits * values))
    except ValueError as error:
        least = sum(int(option.costs.min()) for option in options) / max(values, 1)
        raise StageError(
            f"The scheme {scheme.name!r} allows {formats.average_bits:g} bits on average, and its products take "
            f"{least:.2f} at least, scales counted.",
            f"Set average_bits to {least:.2f} or more, or a larger block_size.",
        ) from error
    found = {str(layer.node.name): names[index] for layer, index in zip(layers, chosen, strict=True)}
    (part.context.out / ALLOCATED).write_text(pretty_json(found), encoding="utf-8", newline="\n")
    return {
        "average_bits": sum(int(option.costs[index]) for option, index in zip(options, chosen, strict=True)) / values,
        "losses": {
            str(layer.node.name): dict(zip(names, map(float, option.losses), strict=True))
            for layer, option in zip(layers, options, strict=True)
        },
    }


def _options(layer: Layer, names: list[str], scheme: Scheme, measure: _Measure, total: int) -> Options:
    """Stored bits of the layer in each format, and what the output loses."""
    costs, losses = [], []
    for name in names:
        formats = SchemeFormats(scheme, chosen={str(layer.node.name): name})
        bits = formats.of("linear", str(layer.node.name)).bits("linear", layer.shape)
        costs.append(round(bits * layer.size))
        losses.append(measure.loss(layer, formats, total))
    return Options(np.array(costs, np.int64), np.array(losses))


class _Measure:
    """The power of what changes in the first output when one layer is rounded. Of a small Llama's logits it chose bits
    as well as the divergence of probabilities did (0.064 and 0.068 nats at 3 bits; the products' own errors: 0.31)."""

    def __init__(self, part: Part, trial: Trial) -> None:
        self._part, self._trial, self._done = part, trial, 0
        self._rows, self._exact = self._within(open_samples(part.context.inputs["samples"].path, _SAMPLES))

    def loss(self, layer: Layer, formats: SchemeFormats, total: int) -> float:
        pairs = zip(self._exact, self._trial.outputs([layer], formats, self._rows), strict=True)
        lost = float(np.sum([power(actual - exact) for exact, actual in pairs]))
        self._done += 1
        self._part.context.progress(self._done, total)
        return lost

    def _within(self, rows: Samples) -> tuple[Samples, list[NDArray[Any]]]:
        """The first samples whose float outputs fit into memory, and these outputs."""
        found: list[NDArray[Any]] = []
        for output in self._trial.exact(rows):
            found.append(output)
            if sum(array.nbytes for array in found) >= _HELD:
                break
        return rows.part(range(len(found))), found
