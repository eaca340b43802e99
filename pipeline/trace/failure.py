"""What exporters and runtimes say when they fail, in one line."""

from __future__ import annotations

from pipeline.core.errors import StageError, first_line

_FIXES_AN_AXIS = (
    "specialized it to be a constant",
    "user-specified ranges",
    "Constraints violated",
    "must match the size",
)
"""What torch.export says where a dynamic axis turns out to have one length, or some lengths only."""
_DECIDES_BY_VALUES = ("data-dependent", "DataDependent")
_CONVERSION = "ConversionError"
"""What torch.onnx raises, once a model is traced, for an operator that it has no ONNX for; its class is private."""
_FOR_LENGTHS = (
    "The model, or a layer of torch's in it, does not take every length of an axis that is declared as dynamic: "
    "declare its size. A Hugging Face model gets one through a factory (file.py:name) in its folder, and [inputs] in "
    "the recipe."
)
_FOR_VALUES = (
    "The model computes otherwise for other values, which a graph cannot; no --opset changes that. Write that place "
    "with torch.where or torch.cond, or give an .onnx file that was exported otherwise."
)
_FOR_TRACING = (
    "torch.export cannot follow the model's code, whatever the --opset. Run again with --debug to see where, or give "
    "an .onnx file that was exported otherwise."
)
_FOR_OPERATORS = "Run again with --debug for the exporter's full report, or try another --opset."


def cannot_export(name: str, opset: int, error: BaseException) -> StageError:
    """The error to raise from the exporter's `error`: its own first line tells the step only, what it was explicitly
    raised from why."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    reason = first_line(causes[-1])
    return StageError(f"{name} cannot be exported to ONNX opset {opset}: {reason}", _remedy(str(causes[-1]), causes))


def _remedy(said: str, causes: list[BaseException]) -> str:
    if "padding token" in said:  # what decoders that classify raise, at every opset
        return 'Set "pad_token_id" in the model\'s config to the id that its tokenizer pads with.'
    if "image size" in said:  # what vision transformers with a table of positions raise
        return (
            "Let preprocessor_config.json make images of the size that the model takes (image_size in its config.json)."
        )
    if any(words in said for words in _DECIDES_BY_VALUES):
        return _FOR_VALUES
    if any(words in said for words in _FIXES_AN_AXIS):
        return _FOR_LENGTHS
    kinds = {kind.__name__ for error in causes for kind in type(error).__mro__}
    operators = _CONVERSION in kinds or "No ONNX function" in said
    return _FOR_OPERATORS if operators else _FOR_TRACING
