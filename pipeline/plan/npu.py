"""The stages of targets with NPUs: the graph with fixed shapes, and compiled for each SoC."""

from __future__ import annotations

from pipeline.bundle.contexts import CONTEXT_STAGE
from pipeline.config.socs import soc_called
from pipeline.config.target import Target
from pipeline.core.errors import EdgeError, UsageError
from pipeline.core.stage import Stage
from pipeline.core.types import Scheme
from pipeline.devices.qnn.environment import require
from pipeline.source.model import ModelSource

FIXED = "fix"
"""The stage that fixes shapes."""


def check_npu(target: Target, scheme: Scheme) -> None:
    """UsageError for a scheme of NPUs where the target has none: shapes are open there, and CPUs gain nothing."""
    if scheme.everywhere is not None and target.npu is None:
        raise UsageError(
            f"The scheme {scheme.name!r} rounds all activations, for NPUs, and the target {target.name} names none "
            "([npu]).",
            "Use --target phone-npu or car-npu, or the scheme w8a8.",
        )


def fixed_stages(target: Target, source: ModelSource, graph: str, evaluation: str) -> list[Stage]:
    """The stage that gives the graph of the stage `graph` the shapes of the samples; none for targets without an NPU.
    UsageError for models whose shapes keep growing."""
    if target.npu is None:
        return []
    if source.language is not None or source.decoder is not None:
        raise UsageError(
            f"{source.name!r} writes texts ({source.task.name}), whose graphs have growing shapes; the target "
            f"{target.name} has an NPU, which needs fixed ones.",
            "Choose a target without [npu].",
        )
    inputs = {"graph": graph, "evaluation": evaluation}
    libraries = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
    return [Stage(FIXED, 1, "pipeline.trace.fix_shapes:run", {}, inputs, libraries)]


def context_stages(target: Target, model: str) -> tuple[list[Stage], list[str]]:
    """The stages that compile the graph of the stage `model` for each SoC of the target, where QNN is set up here; and
    a note if it is not."""
    if target.npu is None:
        return [], []
    try:
        record = require().record
    except EdgeError as error:
        return [], [f"Nothing was compiled for the NPU: {error.message} {error.remedy}"]
    made_by = {"wheel": record.wheel, "sha256": record.package.sha256}
    return [_compiling(name, made_by, model) for name in target.npu.socs], []


def _compiling(name: str, made_by: dict[str, str], model: str) -> Stage:
    config = {**soc_called(name).model_dump(mode="json"), **made_by}
    return Stage(
        f"{CONTEXT_STAGE}{name}", 2, "pipeline.bundle.contexts:run", config, {"model": model}, ("onnxruntime",)
    )
