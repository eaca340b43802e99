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
