"""The baseline of plain quantization schemes: what a recipe with compression passes has to beat."""

from __future__ import annotations

from typing import Any

from pipeline.core.errors import UsageError, suggest
from pipeline.quantize.schemes import SCHEMES

VARIANTS: dict[str, dict[str, Any]] = {
    "w8a8-e4": {"base": "w8a8", "embeddings": 4},
    "w4a8-b64": {"base": "w4a8", "block_size": 64},
    "w4a8-b128": {"base": "w4a8", "block_size": 128},
}
"""Schemes between the named schemes: the embedding is most of a small encoder, and longer blocks have fewer scales."""


def baseline_schemes() -> dict[str, str | dict[str, Any]]:
    """Every plain scheme by its label, as a recipe's `scheme`: all that are registered but fp32, and the variants."""
    return {**{name: name for name in SCHEMES.usable() if name != "fp32"}, **VARIANTS}


def choose(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The baseline schemes that were asked for, or all. UsageError for one that is not there."""
    schemes = baseline_schemes()
    for label in labels:
        if label not in schemes:
            raise UsageError(f"There is no plain scheme {label!r} to compare with.", suggest(label, schemes))
    return tuple(label for label in schemes if not labels or label in labels)
