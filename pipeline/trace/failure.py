"""What exporters and runtimes say when they fail, in one line."""

from __future__ import annotations

from pipeline.core.errors import StageError, first_line

_FIXES_AN_AXIS = ("specialized it to be a constant", "user-specified ranges")
"""What torch.export says where a dynamic axis turns out to have one length."""


def cannot_export(name: str, opset: int, error: BaseException) -> StageError:
    """The error to raise from the exporter's `error`: its own first line tells the step only, what it was explicitly
    raised from why."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    reason = first_line(first)
    remedy = "Run again with --debug for the exporter's full report, or try another --opset."
    if "padding token" in reason:  # what decoders that classify raise, at every opset
        remedy = 'Set "pad_token_id" in the model\'s config to the id that its tokenizer pads with.'
    if any(words in str(first) for words in _FIXES_AN_AXIS):
        remedy = "The model, or a layer of torch's in it, fixes an axis that is declared as dynamic: declare its size."
    return StageError(f"{name} cannot be exported to ONNX opset {opset}: {reason}", remedy)
