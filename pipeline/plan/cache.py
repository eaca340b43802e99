"""Whether a language model's keys and values can be kept in the bits that a scheme says."""

from __future__ import annotations

from pipeline.core.errors import UsageError
from pipeline.core.types import Scheme
from pipeline.runtime.releases import KEPT, parse_release, spell
from pipeline.source.model import ModelSource


def check_cache(scheme: Scheme, source: ModelSource, min_onnxruntime: str | None) -> None:
    """UsageError if the model keeps none, or an app's ONNX Runtime cannot attend to them in fewer bits."""
    bits = scheme.cache
    if bits == 32:
        return
    if source.language is None:
        raise UsageError(
            f"The scheme {scheme.name!r} keeps keys and values in {bits} bits; {source.name!r} does "
            f"{source.task.name}, which keeps none.",
            "Leave cache out: it is for models that do text-generation.",
        )
    if min_onnxruntime is not None and parse_release(min_onnxruntime) < KEPT[bits]:
        first = spell(KEPT[bits])
        raise UsageError(
            f"Keys and values in {bits} bits need ONNX Runtime {first}, not {min_onnxruntime}: older ones have no "
            "kernel for them.",
            f"Ask for --min-onnxruntime {first}, or leave cache out.",
        )
