"""Stage function: which layers cost the output most, measured by rounding each of them alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Scheme
from pipeline.data.samples import open_samples
from pipeline.formats.format import Layer
from pipeline.numerics.noise import power, sqnr_db
from pipeline.quantize.conv import region_of
from pipeline.quantize.heads import formats_of
from pipeline.quantize.layers import read_layers
from pipeline.quantize.parts import Part, for_each
from pipeline.quantize.quantize import SENSITIVE, calibrated
from pipeline.quantize.trial import Trial

_SAMPLES = 32
"""Enough to order layers by their noise, which differs by factors. At most twice as many runs as layers."""


def run(context: StageContext) -> StageMetadata:
    """Writes `sensitive.json`: node -> reason, for the fewest layers that must stay in float. StageError if the float
    model's output is zero on every sample."""
    scheme = Scheme.model_validate(context.config["scheme"])
    assert scheme.min_sqnr_db is not None  # noqa: S101  # the plan has this stage only then
    return for_each(context, lambda part: _measured(part, scheme))


def _measured(part: Part, scheme: Scheme) -> StageMetadata:
    """Of one graph, by the noise in its own output."""
    assert scheme.min_sqnr_db is not None  # noqa: S101  # as above
    context, bench = part.context, _Bench(part, scheme)
    layers = bench.layers
    alone = {layer.node.name: bench.noise([layer]) for layer in layers}
    ordered = sorted(layers, key=lambda layer: -alone[layer.node.name])
    dropped, reached = _fewest(bench, ordered, scheme.min_sqnr_db)
    sensitive = {
        layer.node.name: _reason(sqnr_db(bench.signal, alone[layer.node.name]), scheme) for layer in ordered[:dropped]
    }
    (context.out / SENSITIVE).write_text(pretty_json(sensitive), encoding="utf-8", newline="\n")
    return {
        "samples": len(bench.rows),
        "sqnr_db": _rounded(reached),
        "layers": [[layer.node.name, _rounded(sqnr_db(bench.signal, alone[layer.node.name]))] for layer in ordered],
    }


def _fewest(bench: _Bench, ordered: list[Layer], wanted: float) -> tuple[int, float]:
    """How many of the most sensitive layers must go, and the SQNR without them. One more at a time: errors of layers
    partly cancel, so that one layer less can mean more noise, and bisection would miss the fewest."""
    for dropped in range(len(ordered)):
        reached = sqnr_db(bench.signal, bench.noise(ordered[dropped:]))
        if reached >= wanted:
            return dropped, reached
    return len(ordered), float("inf")


def _reason(found: float, scheme: Scheme) -> str:
    return (
        f"sensitive: rounding it alone brings the output's SQNR to {found:.1f} dB, and the scheme asks for "
        f"min_sqnr_db = {scheme.min_sqnr_db:g} in all"
    )


def _rounded(value: float) -> float | None:
    return round(value, 2) if np.isfinite(value) else None


class _Bench:
    """Measures the output's noise when some layers are rounded and all others are not."""

    def __init__(self, part: Part, scheme: Scheme) -> None:
        context = part.context
        self._context = context
        graph = part.load().graph
        every, _ = read_layers(context.inputs["layers"], graph)
        self._formats = formats_of(scheme, every)
        self._found = calibrated(context, graph, every, self._formats)
        region = region_of(graph, every, self._formats, self._found.values, self._found.damage)
        taken = {layer.node.name for layer in region.convolutions}
        self.layers = [layer for layer in every if layer.node.name in taken or self._rounds(layer)]
        self.rows = open_samples(context.inputs["samples"].path, _SAMPLES)
        self._trial = Trial(part, self._found)
        self._reference = list(self._trial.exact(self.rows))
        self.signal = sum(map(power, self._reference))
        if self.signal == 0:
            raise StageError(
                "The float model's output is zero on every calibration sample.", "Look at the samples and the model."
            )
        self._steps = 0

    def _rounds(self, layer: Layer) -> bool:
        return layer.op != "conv" and not self._formats.of(layer.op, str(layer.node.name)).refuses(layer.op)

    def noise(self, layers: Sequence[Layer]) -> float:
        """Power of what rounding `layers` changes, summed over samples and the values of the first output."""
        pairs = zip(self._reference, self._trial.outputs(layers, self._formats, self.rows), strict=True)
        found = sum(power(actual - expected) for expected, actual in pairs)
        self._steps += 1
        total = 2 * len(self.layers)  # each alone, then as many as must go
        self._context.progress(min(self._steps, total), total)
        return found
