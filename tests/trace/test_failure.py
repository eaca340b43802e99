"""What an exporter's failure is told as."""

from __future__ import annotations

import pytest

from pipeline.core.errors import StageError
from pipeline.trace.failure import cannot_export


def test_the_first_cause_is_told_not_the_exporters_step() -> None:
    with pytest.raises(StageError) as caught:
        try:
            try:
                raise ValueError("No ONNX function found for eig.\nmore")
            except ValueError as cause:
                raise RuntimeError("This is step 3/3 of exporting.") from cause
        except RuntimeError as error:
            raise cannot_export("Net", 21, error) from error
    assert caught.value.message == "Net cannot be exported to ONNX opset 21: No ONNX function found for eig."


def test_an_error_that_was_only_being_handled_is_no_cause() -> None:
    try:
        try:
            raise KeyError("cache")
        except KeyError:
            raise RuntimeError("The model has no forward.")  # noqa: B904  # as libraries do
    except RuntimeError as error:
        assert cannot_export("Net", 21, error).message.endswith(": The model has no forward.")


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Constraints violated (L['x'].size()[1])!", "The model, or a layer of torch's in it, does not take every"),
        ("The size of tensor a (8) must match the size of tensor b (s41)", "The model, or a layer of torch's in it,"),
        (
            "Input image size (48*48) doesn't match model (32*32).",
            "Let preprocessor_config.json make images of the size",
        ),
        ("Could not guard on data-dependent expression 2*u4 - 1 < 0", "The model computes otherwise for other values"),
        ("You must specify exactly one of input_ids or inputs_embeds", "torch.export cannot follow the model's code"),
        ("No ONNX function found for eig.", "Run again with --debug for the exporter's full report, or try another"),
    ],
)
def test_only_an_operators_failure_is_a_matter_of_the_opset(said, remedy) -> None:
    assert cannot_export("Net", 21, RuntimeError(said)).remedy.startswith(remedy)
