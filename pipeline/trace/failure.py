"""What exporters and runtimes say when they fail, in one line."""

from __future__ import annotations

from pipeline.core.errors import StageError, causes


def cannot_export(name: str, opset: int, error: BaseException) -> StageError:
    """The error to raise from the exporter's `error`: its own first line tells the step only, its first cause why."""
    *_, first = causes(error)
    return StageError(
        f"{name} cannot be exported to ONNX opset {opset}: {first_line(first)}",
        "Run again with --debug for the exporter's full report, or try another --opset.",
    )


def first_line(error: BaseException) -> str:
    """Of its message; its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
