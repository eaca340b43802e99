"""What is nasty to each kind of input, and which probe reads it. A kind is a function of (working folder, valid inputs, dice)
that leaves a bad input in the folder and returns its case."""

from __future__ import annotations

from benchmarks.fuzz.case import Kind
from benchmarks.fuzz.kinds.data import images, masks, objects, recordings, sequences, tables, tensors, texts
from benchmarks.fuzz.kinds.models import bert, code, onnx, vit, weights
from benchmarks.fuzz.kinds.settings import baselines, bundles, heads, names, recipe, target

KINDS: dict[str, Kind] = {
    "bert": bert, "weights": weights, "vit": vit, "onnx": onnx, "target": target, "recipe": recipe, "texts": texts, "tensors": tensors,
    "images": images, "recordings": recordings, "objects": objects, "bundles": bundles, "baselines": baselines, "code": code, "names": names,
    "masks": masks, "tables": tables, "sequences": sequences, "heads": heads,
}  # fmt: skip
