"""Which layers 8 bits ruin, by what was measured of them (see `losses` and `noise`), and what becomes of those: they
run in float, and their weights are stored in 8 bits, in 16, or not even that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from pipeline.formats import NUMBER_FORMATS
from pipeline.formats.format import Layer, NumberFormat, TensorClass
from pipeline.formats.scheme import SchemeFormats

MOST_LOST: Mapping[TensorClass, float] = {"conv": 0.01, "linear": 0.1}
"""Share of its power that a layer may lose to 8 bits. Convolutions of detectors and of recognizers of text lose 0.0003
to 0.007 (YOLOv8, PP-OCR); transforms of waveforms to spectra 0.06 to 0.15, and what reads a spectrum that is no
logarithm 0.02 (Silero VAD, Basic Pitch, mel front ends)."""
Losses: TypeAlias = Mapping[str, tuple[float, float]]
"""Node -> what it loses in integers, and with the weight alone in 8 bits."""
_NOTHING = (0.0, 0.0)


@dataclass(frozen=True)
class Damage:
    """What 8 bits do: the `losses` of layers alone, by node; and by weight, why a convolution or an LSTM costs the
    outputs more in integers than it saves (`noisy`), and why a weight that is only stored takes 16 bits (`wide`)."""

    losses: Losses = field(default_factory=dict)
    noisy: Mapping[str, str] = field(default_factory=dict)
    wide: Mapping[str, str] = field(default_factory=dict)

    def lost(self, layer: Layer) -> tuple[float, float]:
        return self.losses.get(str(layer.node.name), _NOTHING)

    def changes(self, layer: Layer) -> bool:
        """Whether a weight is stored in another format than the scheme's (but for those of convolutions, which
        `region_of` sees to)."""
        return layer.weight_name in self.wide or (layer.op == "lstm" and layer.weight_name in self.noisy)


NONE = Damage()


class Stored(NamedTuple):
    """A layer that runs in float, how its weight is stored, and why."""

    layer: Layer
    form: NumberFormat
    reason: str


def ruined(layers: Sequence[Layer], formats: SchemeFormats, damage: Damage) -> dict[int, str]:
    """Why layers must not run in integers, by their ids: those that lose too much there, and what shares a weight with
    one, but for what an override wants so."""
    found = {
        layer.weight_name for layer in layers if _too_much(layer, damage) and not formats.override(str(layer.node.name))
    }
    return {id(layer): _reason(layer, damage) for layer in layers if layer.weight_name in found}


def in_float(layer: Layer, why: str, formats: SchemeFormats, damage: Damage) -> Stored | str:
    """How the weight of a layer is stored that runs in float; or why it stays in float too."""
    if small := stored_form(formats).leaves(layer.op, layer.weight):
        return f"{why}, and it has {small}"
    lost = damage.lost(layer)[1]
    if lost > MOST_LOST[layer.op]:
        return Stored(layer, wide_form(formats), f"{why}, and {100 * lost:.1f} % with the weight alone in 8 bits")
    if layer.weight_name in damage.wide:
        return Stored(layer, wide_form(formats), f"{why}, and {damage.wide[layer.weight_name]}")
    return Stored(layer, stored_form(formats), why)


def stored_form(formats: SchemeFormats) -> NumberFormat:
    """How layers are stored that integers would slow down or ruin."""
    return NUMBER_FORMATS.get("int8-stored")(formats.scheme)


def form_of(layer: Layer, formats: SchemeFormats, damage: Damage) -> NumberFormat:
    """The format of a layer that no measurement keeps from integers: the scheme's, or 16 bits in place of 8 for a
    weight that is stored only."""
    form = formats.of(layer.op, str(layer.node.name))
    if layer.op == "lstm" and layer.weight_name in damage.noisy:
        form = stored_form(formats)
    stored = form.name == stored_form(formats).name and not formats.override(str(layer.node.name))
    return wide_form(formats) if stored and layer.weight_name in damage.wide else form


def wide_form(formats: SchemeFormats) -> NumberFormat:
    """How weights are stored that 8 bits would ruin."""
    return NUMBER_FORMATS.get("fp16")(formats.scheme)


def _too_much(layer: Layer, damage: Damage) -> bool:
    return layer.weight_name in damage.noisy or damage.lost(layer)[0] > MOST_LOST[layer.op]


def _reason(layer: Layer, damage: Damage) -> str:
    if noisy := damage.noisy.get(layer.weight_name):
        return noisy
    what = "output channels" if layer.op == "conv" else "output channels or its rows"
    return f"in integers its {what} would lose {100 * damage.lost(layer)[0]:.1f} % of their power to rounding"
