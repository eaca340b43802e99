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
        "Embeddings": _stored(scheme.embeddings, scheme.embedding_block_size, scheme),
    }
    if scheme.activations != "float":
        words["Weight codes"] = _codes(scheme.reduce_range)
    if scheme.weights in (8, 4) and scheme.activations == "float":
        words["Products"] = _ACCURACY_LEVEL[scheme.accuracy_level]
    if scheme.activations == "static":
        words["Ranges from"] = _observer(scheme)
    words["Smoothing"] = "none" if scheme.smoothing is None else f"SmoothQuant, alpha {scheme.smoothing:g}"
    words["Left out on request"] = ", ".join(scheme.nodes_to_exclude) or "nothing"
    return words


def _weights(scheme: Scheme) -> str:
    if scheme.weights == 8 and scheme.activations != "float":
        scales = "one scale per output channel" if scheme.per_channel else "one scale per tensor"
        return f"8-bit integers, {scales}"
    if scheme.weights == 8:
        return f"8-bit integers{_blocks(scheme.block_size, scheme)}"
    rounding = ", rounded with GPTQ" if scheme.rounding == "gptq" else ""
    widened = ", widened to 8 bits when the model is loaded" if scheme.activations != "float" else ""
    return _stored(scheme.weights, scheme.block_size, scheme) + rounding + widened


def _stored(bits: int, block_size: int, scheme: Scheme) -> str:
    if bits == 32:
        return "stay in 32-bit float"
    if bits == 16:
        return "16-bit float, widened to 32 bits where they are used"
    return f"{bits}-bit integers{_blocks(block_size, scheme) if bits == 4 else ''}"


def _blocks(size: int, scheme: Scheme) -> str:
    return f", one {scheme.scale_bits}-bit scale per block of {size}"


def _codes(reduce_range: bool) -> str:
    if reduce_range:
        return "7 of the 8 bits, so that 16-bit sums cannot saturate and every CPU answers alike"
    return "all 8 bits; sums may saturate on x86 without VNNI"


def _observer(scheme: Scheme) -> str:
    if scheme.observer == "percentile":
        return f"percentile observer at {scheme.percentile:g} %"
    return f"{scheme.observer} observer"
