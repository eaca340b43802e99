"""What an exporter's failure is told as."""

from __future__ import annotations

import pytest

from pipeline.core.errors import StageError
from pipeline.trace.failure import cannot_export, first_line


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


@pytest.mark.parametrize(("error", "line"), [(ValueError("\n a\nb"), "a"), (KeyError(), "KeyError")])
def test_first_line(error: BaseException, line: str) -> None:
    assert first_line(error) == line
