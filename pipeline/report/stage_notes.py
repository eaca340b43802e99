"""What the stages of an export have to say beside their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.report_types import PassReport
from pipeline.report.calibration import calibration_notes
from pipeline.report.output_folder import MODEL
from pipeline.report.sparsity import sparsity_notes


def stage_notes(metadata: Mapping[str, Mapping[str, Any]], passes: Sequence[PassReport]) -> list[str]:
    """Of what the stages found out, by name, and the reports of the passes among them."""
    return [
        *(note for values in metadata.values() for note in values.get("notes", [])),
        *_saved_notes(metadata.get("model")),
        *sparsity_notes(passes),
        *calibration_notes(metadata),
        *_scale_notes(metadata.get("quantize", {}).get("float32_scales", [])),
    ]


def _saved_notes(saved: Mapping[str, Any] | None) -> list[str]:
    if saved is None:
        return []
    if saved["loads"] == "transformers":
        return [f"The compressed PyTorch model is in {MODEL}/: transformers loads it, and so does edge (--model)."]
    return [
        f"The compressed PyTorch model is in {MODEL}/ as weights.safetensors and the edits that give their shapes: "
        f"{saved['reason']}."
    ]


def _scale_notes(weights: Sequence[str]) -> list[str]:
    if not weights:
        return []
    return [
        f"float16 cannot hold the scales of {', '.join(weights)}: they are stored as float32, which takes more bytes."
    ]
