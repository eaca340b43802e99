"""A scheme's number formats in words."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.report_types import TensorFormat
from pipeline.core.types import Scheme
from pipeline.formats.scheme import SchemeFormats
from pipeline.report.text import count


def scheme_words(scheme: Scheme, tensors: Sequence[TensorFormat] = ()) -> dict[str, str]:
    """What is rounded and how, by subject; fields without effect on this scheme are left out. `tensors`: what was
    stored, where that is known."""
    formats = SchemeFormats(scheme, tensors)
    words = {
        "Weights": formats.classes["linear"].words("linear"),
        "Activations": formats.rounded_inputs,
        "Embeddings": formats.classes["table"].words("table"),
        **formats.details(),
        "Smoothing": "none" if scheme.smoothing is None else f"SmoothQuant, alpha {scheme.smoothing:g}",
        "Left out on request": ", ".join(scheme.nodes_to_exclude) or "nothing",
    }
    if scheme.overrides:
        words["Overrides"] = "; ".join(f"{pattern}: {name}" for pattern, name in scheme.overrides)
    return words


def format_note(scheme: Scheme, tensors: Sequence[TensorFormat]) -> str:
    """How many weights have which format, where a scheme has overrides; else empty, since the scheme says it."""
    if not scheme.overrides or not tensors:
        return ""
    names = dict.fromkeys(tensor.format for tensor in tensors)
    parts = []
    for name in names:
        stored = [tensor for tensor in tensors if tensor.format == name]
        parts.append(f"{name} {count(len(stored), 'weight')} ({sum(t.megabytes for t in stored):.3g} MB)")
    return f"Number formats by the scheme and its overrides: {', '.join(parts)}; report.json lists every weight."
