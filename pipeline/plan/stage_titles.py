"""What a stage is called where people read it."""

from __future__ import annotations

import re

_TITLES = {
    "samples.calibration": "read calibration samples",
    "samples.evaluation": "read evaluation samples",
    "samples.golden": "read golden samples",
    "steps.golden": "read golden sequences",
    "steps.calibration": "read calibration sequences",
    "steps.evaluation": "read evaluation sequences",
    "samples.training": "read training samples",
    "vocabulary": "trim the vocabulary",
    "teacher": "record the teacher's outputs",
    "trace.float": "trace float model",
    "probe": "probe float model",
    "judge": "test the judge",
    "trace": "trace compressed model",
    "model": "save compressed model",
    "layers": "find layers",
    "calibrate.cache": "calibrate keys and values",
    "calibrate.channels": "calibrate channels",
    "calibrate.ranges": "calibrate ranges",
    "calibrate.hessians": "calibrate hessians",
    "learn": "learn codes and scales",
    "smooth": "smooth outlier channels",
    "calibrate.moments": "observe the inputs of products",
    "scale": "scale channels for rounding",
    "noise": "measure each layer's noise",
    "sensitivity": "measure sensitivity",
    "allocation": "measure what fewer bits lose",
    "fix": "fix shapes",
    "quantize": "quantize",
    "write": "write ONNX",
    "compare": "compare with float",
    "outside": "test calibrated ranges",
    "texts": "write texts",
    "exact_match": "solve problems",
    "reference": "run float reference",
    "bundle": "bundle",
    "answers": "run bundle",
}


def title_of(stage: str) -> str:
    """`trace.float` -> `trace float model`; of a pass its place in the recipe and its name (`compress.0.prune` ->
    `pass 1: prune`). A stage that belongs to a pass is called as if it were the only one."""
    if found := re.fullmatch(r"compress\.(\d+)\.(\w+)", stage):
        return f"pass {int(found[1]) + 1}: {found[2]}"
    if found := re.fullmatch(r"context\.(\w+)", stage):
        return f"compile for {found[1]}"
    return _TITLES[re.sub(r"\.\d+$", "", stage)]
