"""What exporters and runtimes say when they fail, in one line."""

from __future__ import annotations

from pipeline.core.errors import StageError, first_line


def cannot_export(name: str, opset: int, error: BaseException) -> StageError:
    """The error to raise from the exporter's `error`: its own first line tells the step only, what it was explicitly
    raised from why."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    return StageError(
        f"{name} cannot be exported to ONNX opset {opset}: {first_line(first)}",
        "Run again with --debug for the exporter's full report, or try another --opset.",
    )
