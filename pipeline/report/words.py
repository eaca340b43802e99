"""A scheme's number formats in words."""

from __future__ import annotations

from pipeline.core.types import Scheme

_ACTIVATIONS = {
    "float": "stay in float",
    "dynamic": "8-bit integers, with ranges found at run time for every input",
    "static": "8-bit integers, with ranges fixed by calibration",
}
_ACCURACY_LEVEL = {
    0: "left to ONNX Runtime (accuracy_level 0)",
    1: "in 32-bit float (accuracy_level 1)",
    4: "inputs rounded to 8-bit integers (accuracy_level 4)",
}


def scheme_words(scheme: Scheme) -> dict[str, str]:
    """What is rounded and how, by subject; fields without effect on this scheme are left out."""
    words = {
        "Weights": _weights(scheme),
        "Activations": _ACTIVATIONS[scheme.activations],
        "Embeddings": _stored(scheme.embeddings, scheme),
    }
    if scheme.weights == 8:
        words["Weight codes"] = _codes(scheme.reduce_range)
    if scheme.weights == 4:
        words["Products"] = _ACCURACY_LEVEL[scheme.accuracy_level]
    if scheme.activations == "static":
        words["Ranges from"] = _observer(scheme)
    words["Smoothing"] = "none" if scheme.smoothing is None else f"SmoothQuant, alpha {scheme.smoothing:g}"
    words["Left out on request"] = ", ".join(scheme.nodes_to_exclude) or "nothing"
    return words


def _weights(scheme: Scheme) -> str:
    if scheme.weights != 8:
        return _stored(scheme.weights, scheme)
    scales = "one scale per output channel" if scheme.per_channel else "one scale per tensor"
    return f"8-bit integers, {scales}"


def _stored(bits: int, scheme: Scheme) -> str:
    if bits == 32:
        return "stay in 32-bit float"
    blocks = f", one scale per block of {scheme.block_size}" if bits == 4 else ""
    return f"{bits}-bit integers{blocks}"


def _codes(reduce_range: bool) -> str:
    if reduce_range:
        return "7 of the 8 bits, so that 16-bit sums cannot saturate and every CPU answers alike"
    return "all 8 bits; sums may saturate on x86 without VNNI"


def _observer(scheme: Scheme) -> str:
    if scheme.observer == "percentile":
        return f"percentile observer at {scheme.percentile:g} %"
    return f"{scheme.observer} observer"
