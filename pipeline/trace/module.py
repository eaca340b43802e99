"""Any torch.nn.Module -> ONNX, with torch's own exporter. (transformers' exporter takes its own models only.)"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from pipeline.core.errors import UsageError, first_line
from pipeline.core.model_spec import InputSpec, ModelSpec
from pipeline.trace.failure import cannot_export
from pipeline.trace.outputs import make_traceable, names_of


def trace_module(model: nn.Module, examples: dict[str, Tensor], spec: ModelSpec, opset: int) -> ir.Model:
    """Export `model`; the axes that `spec.inputs` names are dynamic. A lone output is called after the task.

    UsageError if the examples do not fit the model's forward, StageError if it cannot be exported.
    """
    outputs = output_names(model, examples, spec.output)
    try:
        with uncollected():
            program = torch.onnx.export(
                model,
                kwargs=examples,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=_dynamic(spec.inputs),
                output_names=outputs,
                verbose=False,
            )
    except (RuntimeError, ValueError, TypeError, NotImplementedError, torch.onnx.OnnxExporterError) as error:
        raise cannot_export(spec.name, opset, error) from error
    assert program is not None  # noqa: S101  # it is None for other kinds of export only
    return program.model


def output_names(model: nn.Module, examples: dict[str, Tensor], judged: str) -> list[str]:
    """Names of the outputs of `model` (see `outputs.names_of`), whose structure the exporter is told of."""
    result = run(model, examples)
    make_traceable(result)
    return names_of(result, judged)


def run(model: nn.Module, examples: dict[str, Tensor]) -> Any:
    """The model's output on the examples; UsageError if they do not fit its forward."""
    taken = inspect.signature(model.forward).parameters
    unknown = [name for name in examples if name not in taken]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        raise UsageError(
            f"The model has no input {unknown[0]!r}.", f"Its forward takes {', '.join(taken)}: name the inputs so."
        )
    try:
        with torch.inference_mode():
            return model(**examples)
    except (Exception, SystemExit) as error:  # the user's code may raise anything, and must not end us with its code
        shapes = ", ".join(f"{name} {str(value.dtype)[6:]} {list(value.shape)}" for name, value in examples.items())
        raise UsageError(
            f"The model cannot run its example inputs ({shapes}): {first_line(error)}",
            "Correct the shapes and dtypes of [inputs] in the recipe, or of example_inputs() in the factory's module.",
        ) from error


def _dynamic(specs: Mapping[str, InputSpec]) -> dict[str, dict[int, Any]]:
    return {
        name: {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for name, spec in specs.items()
    }


@contextmanager
def uncollected() -> Iterator[None]:
    """Tracing makes millions of small objects that live to its end: looking for garbage among them only costs time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
