"""Stage function: which convolutions cost the outputs more in integers than the time they save is worth, and which
weights that are only stored need 16 bits.

Rounding each layer alone shows what it adds to the noise of the outputs. Often a few make most of it: the first three
of a YOLOv8's 63 convolutions make 98 %, for a twelfth of the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx_ir as ir

from pipeline.core.digest import pretty_json
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Scheme
from pipeline.formats.format import Layer, NumberFormat
from pipeline.formats.int8_channel import NOISY
from pipeline.graph.operators import CONVOLUTIONS
from pipeline.quantize.conv import region_of
from pipeline.quantize.frontier import Point, Rate, decibels, steepest
from pipeline.quantize.heads import formats_of
from pipeline.quantize.layers import read_layers
from pipeline.quantize.output_noise import OutputNoise, Powers
from pipeline.quantize.parts import Part, for_each
from pipeline.quantize.qdq_region import QdqRegion
from pipeline.quantize.quantize import NOISE, Calibrated, Chosen, calibrated, choose
from pipeline.quantize.ruined import Stored, form_of, stored_form, wide_form
from pipeline.quantize.stretches import saved

_RUNS, _LEAST, _MOST = 256, 4, 32
"""Samples that layers are rounded alone on: as many as make so many runs. Their noise differs by factors."""
_WHOLE = 32
"""Samples that a plan is judged on: what a decision rests on may be seen on few."""
_TIME = Rate(per_cent=0.25, enough=40.0)
"""For multiply-accumulates: half of the noise is worth an eighth of them in float."""
_BYTES = Rate(per_cent=0.12, enough=50.0)
"""For bytes of the weights: half of the noise is worth a quarter more."""
_SPARE = 1.02
"""Of the bytes that ONNX Runtime's own quantizers leave: what more accurate weights may take."""
_NOT_DYNAMIC = {*CONVOLUTIONS, "GRU", "RNN"}
"""Operators whose weights `quantize_dynamic` leaves, or had better leave."""
_TRIED = 4
"""Of the loudest convolutions, at every step."""
_RUIN, _RUIN_LESS = 0.01, 0.1
"""Noise over the variance of the worst output that one LSTM may make in integers, and of that noise what may be left
where it is stored only."""
_RUINS = NOISY + " {:.1f} dB"
_NOISY = NOISY + " {:.1f} dB, more than the time that it saves is worth"
_WIDE = "in 8 bits it alone brings the outputs to {:.1f} dB"


def run(context: StageContext) -> StageMetadata:
    """Writes `noise.json`: `noisy` and `wide` of `Damage`."""
    scheme = Scheme.model_validate(context.config["scheme"])
    return for_each(context, lambda part: _measured(part, scheme))


def _measured(part: Part, scheme: Scheme) -> StageMetadata:
    bench = _Bench(part, scheme)
    bench.ruined = _ruined(bench)
    noisy, wide = [], []
    if bench.matters and (whole := decibels(bench.noise())) < _BYTES.enough:
        noisy = _noisy(bench) if whole < _TIME.enough else []
        wide = _wide(bench, noisy)
        if wide and whole < _TIME.enough:  # what they had hidden
            noisy = _noisy(bench, wide)
            wide = _wide(bench, noisy)
    found = {
        "noisy": {
            **{name: _NOISY.format(decibels(bench.alone(name).max())) for name in noisy},
            **{name: _RUINS.format(decibels(noise)) for name, noise in bench.ruined.items()},
        },
        "wide": {name: _WIDE.format(decibels(bench.alone(name, stored=True).max())) for name in wide},
    }
    (part.context.out / NOISE).write_text(pretty_json(found), encoding="utf-8", newline="\n")
    return {"noisy": len(noisy) + len(bench.ruined), "wide": len(wide)}


def _ruined(bench: _Bench) -> dict[str, float]:
    """The weights of LSTMs whose products in integers ruin the outputs, with the noise that each alone makes: they are
    stored only, where that makes far less. (Their inputs are rounded at run time with one scale for all, which leaves
    nothing of the quiet part of what is no logarithm of a spectrum.)"""
    found: dict[str, float] = {}
    for node in bench.lstms:
        lost, kept = (float(bench.recurrent(node, stored).max()) for stored in (False, True))
        if lost > _RUIN and kept < lost * _RUIN_LESS:
            found |= dict.fromkeys(bench.lstms[node], lost)
    return found


def _noisy(bench: _Bench, wide: Sequence[str] = ()) -> list[str]:
    """The weights of the convolutions to leave out of integers: on the path on which the loudest for the time that it
    saves goes next, by its noise alone. What a plan loses is measured of all its layers together, whose noise may add
    up to more than its parts. `wide`: weights that are stored in 16 bits."""
    out: list[str] = []
    path = [Point(bench.noise((), wide), 0.0)]
    while not _TIME.is_spent(path):
        loudest = sorted(bench.integers(out), key=lambda name: -bench.alone(name).max())[:_TRIED]
        if not loudest:
            break
        steps = [bench.estimate([*out, name]) for name in loudest]
        place = steepest(bench.estimate(out), steps)
        out.append(loudest[place])
        path.append(Point(bench.noise(out, wide), steps[place].price))
    return out[: _TIME.best(path)]


def _wide(bench: _Bench, noisy: list[str]) -> list[str]:
    """The weights to store in 16 bits: the loudest of those that are stored only, for their bytes. Those take no more
    room than there is, unless decisions would change."""
    sizes = {name: 100 * size / bench.size for name, size in bench.stored(noisy).items()}
    path, taken = [Point(bench.noise(noisy), 0.0)], []
    room = bench.room(noisy)
    names = sizes if _BYTES.is_broken(path[0]) else [name for name in sizes if sizes[name] <= room]
    for name in sorted(names, key=lambda name: -bench.alone(name, stored=True).max() / sizes[name]):
        price = path[-1].price + sizes[name]
        if _BYTES.is_spent([path[0], path[-1]]):
            break
        if price <= room or _BYTES.is_broken(path[-1]):
            taken.append(name)
            path.append(Point(bench.noise(noisy, taken), price))
    return taken[: _BYTES.best(path)]


class _Bench:
    """What each weight adds to the noise of the outputs, over their variance, float64 [outputs]; and what plans take
    that leave some convolutions out of integers, by the names of their weights."""

    def __init__(self, part: Part, scheme: Scheme) -> None:
        self._part, self._model = part, part.load()
        self.layers = self._layers_of(self._model)
        self._formats = formats_of(scheme, self.layers)
        self._found = calibrated(part.context, self._model.graph, self.layers, self._formats)
        self._alone: dict[tuple[str, bool], Powers] = {}
        self._plans: dict[frozenset[str], Chosen] = {}
        self.ruined: Mapping[str, float] = {}

    @property
    def lstms(self) -> dict[str, list[str]]:
        """The LSTMs that run in integers, but for overrides, with the names of their weights."""
        found: dict[str, list[str]] = {}
        for layer in self.layers:
            name = str(layer.node.name)
            if layer.op == "lstm" and self._form(layer) == "int8-lstm" and not self._formats.override(name):
                found.setdefault(name, []).append(layer.weight_name)
        return found if found and self._outputs.has_signal else {}

    def recurrent(self, node: str, stored: bool) -> Powers:
        """Of an LSTM in integers, or with weights that are stored in 16 bits."""
        model, layers = self._open()
        read = [layer for layer in layers if layer.node.name == node]
        return self._kept(model, read, wide_form(self._formats)) if stored else self._rounded(model, read)

    @cached_property
    def _outputs(self) -> OutputNoise:
        samples = min(_MOST, max(_LEAST, _RUNS // len(self.layers)))
        return OutputNoise(self._part, self._formats, self._found, samples)

    @cached_property
    def _of_plans(self) -> OutputNoise:
        return OutputNoise(self._part, self._formats, self._found, _WHOLE)

    @property
    def size(self) -> int:
        """The bytes of all weights in 8 bits."""
        return sum(layer.size for layer in self.layers)

    def room(self, noisy: Iterable[str]) -> float:
        """What weights may take beyond 8 bits, in per cent: as `quantize_static` leaves those of recurrent layers and
        of bodies in 32 bits, and `quantize_dynamic` those of convolutions; the smaller of both, unless all convolutions
        are in float as there; and a little."""
        static = sum(layer.size * (4 if layer.op in ("lstm", "other") else 1) for layer in self.layers)
        dynamic = sum(layer.size * (4 if layer.node.op_type in _NOT_DYNAMIC else 1) for layer in self.layers)
        least = min(static, dynamic) if self._plan(noisy).region.convolutions else dynamic
        return 100 * (_SPARE * least / self.size - 1)

    @property
    def matters(self) -> bool:
        """Whether anything could be left out of integers or stored in more bits. (If not, nothing is run.)"""
        return bool(self.integers([]) or self.stored([])) and self._outputs.has_signal

    def noise(self, noisy: Sequence[str] = (), wide: Sequence[str] = ()) -> float:
        """The noise of the worst output, with all that the plan rounds which leaves the convolutions `noisy` out of
        integers and stores `wide` in 16 bits."""
        model, layers = self._open()
        found = self._without(noisy, wide)
        chosen = choose(model.graph, layers, self._formats, found)
        return float(self._of_plans.of(model, chosen.layers, chosen.region, chosen.stored, found.damage).max())

    def alone(self, weight: str, stored: bool = False) -> Powers:
        """Of a convolution in integers, or of a weight that is stored in 8 bits."""
        if (weight, stored) not in self._alone:
            model, layers = self._open()
            read = [layer for layer in layers if layer.weight_name == weight]
            form = stored_form(self._formats)
            self._alone[weight, stored] = self._kept(model, read, form) if stored else self._rounded(model, read)
            self._part.context.progress(len(self._alone), len(self.layers) + 2)
        return self._alone[weight, stored]

    def estimate(self, noisy: Iterable[str]) -> Point:
        """What convolutions add in integers, each for itself, to the worst output, and what leaving integers costs, its
        crossings to float too, in per cent of what all save that can run in integers."""
        values = self._found.values or {}
        first, now = (saved(self._model.graph, self._plan(names).region, values) for names in ([], noisy))
        noise = sum((self.alone(name) for name in self.integers(noisy)), np.zeros(1))
        return Point(float(noise.max()), 100 * (first - now) / first if first > 0 else 0.0)

    def integers(self, noisy: Iterable[str]) -> list[str]:
        """The weights of the convolutions that run in integers, but for overrides."""
        found = self._plan(noisy).region.convolutions
        return _names(layer for layer in found if not self._formats.override(str(layer.node.name)))

    def stored(self, noisy: Iterable[str]) -> dict[str, int]:
        """The weights that are only stored, in 8 bits, and how many values each has."""
        chosen, eight = self._plan(noisy), stored_form(self._formats).name
        found = [layer for layer, form, _ in (*chosen.region.stored, *chosen.stored) if form.name == eight]
        found += [layer for layer in chosen.layers if layer.op in ("lstm", "other") and self._form(layer) == eight]
        return {layer.weight_name: layer.size for layer in found}

    def _form(self, layer: Layer) -> str:
        form = form_of(layer, self._formats, self._without(()).damage)
        return "" if form.leaves(layer.op, layer.weight) else form.name

    def _plan(self, noisy: Iterable[str]) -> Chosen:
        """What becomes of all layers."""
        if (key := frozenset(noisy)) not in self._plans:
            self._plans[key] = choose(self._model.graph, self.layers, self._formats, self._without(key))
        return self._plans[key]

    def _without(self, noisy: Iterable[str], wide: Iterable[str] = ()) -> Calibrated:
        """What was found, with these choices made."""
        named = dict.fromkeys((*noisy, *self.ruined), "")
        damage = replace(self._found.damage, noisy=named, wide=dict.fromkeys(wide, ""))
        return replace(self._found, damage=damage)

    def _rounded(self, model: ir.Model, layers: list[Layer]) -> Powers:
        return self._outputs.of(model, layers, region_of(model.graph, layers, self._formats))

    def _kept(self, model: ir.Model, layers: list[Layer], form: NumberFormat) -> Powers:
        stored = [Stored(layer, form, "") for layer in layers]
        region = QdqRegion(stored=tuple(entry for entry in stored if entry.layer.op == "conv"))
        return self._outputs.of(model, layers, region, stored)

    def _open(self) -> tuple[ir.Model, list[Layer]]:
        """A fresh copy of the model, and its layers."""
        model = self._model.clone()
        return model, self._layers_of(model)

    def _layers_of(self, model: ir.Model) -> list[Layer]:
        return read_layers(self._part.context.inputs["layers"], model.graph)[0]


def _names(layers: Iterable[Layer]) -> list[str]:
    return list(dict.fromkeys(layer.weight_name for layer in layers))
