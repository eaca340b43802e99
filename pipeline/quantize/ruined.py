"""Which layers 8 bits ruin, by what was measured of them (see `losses`), and what becomes of those: they run in float,
and their weights are stored in 8 bits or not even that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

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


def ruined(layers: Sequence[Layer], formats: SchemeFormats, losses: Losses) -> dict[int, str]:
    """Why layers must not run in integers, by their ids: those that lose too much there, and what shares a weight with
    one, but for what an override wants so."""
    found = {
        layer.weight_name
        for layer in layers
        if _lost(layer, losses)[0] > MOST_LOST[layer.op] and not formats.override(str(layer.node.name))
    }
    return {id(layer): _reason(layer, losses) for layer in layers if layer.weight_name in found}


def unfit_to_store(layer: Layer, formats: SchemeFormats, losses: Losses) -> str:
    """Why a layer that runs in float keeps its weight in float too; empty if it need not."""
    if small := stored_form(formats).leaves(layer.op, layer.weight):
        return f"it has {small}"
    lost = _lost(layer, losses)[1]
    return f"{100 * lost:.1f} % with the weight alone in 8 bits" if lost > MOST_LOST[layer.op] else ""


def stored_form(formats: SchemeFormats) -> NumberFormat:
    """How layers are stored that integers would slow down or ruin."""
    return NUMBER_FORMATS.get("int8-stored")(formats.scheme)


def _reason(layer: Layer, losses: Losses) -> str:
    what = "output channels" if layer.op == "conv" else "output channels or its rows"
    return f"in integers its {what} would lose {100 * _lost(layer, losses)[0]:.1f} % of their power to rounding"


def _lost(layer: Layer, losses: Losses) -> tuple[float, float]:
    return losses.get(str(layer.node.name), _NOTHING)
