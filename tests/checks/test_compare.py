"""Errors of a quantized graph's outputs: sums by hand, and what is said loudly."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.checks.compare import LIMIT_DB, ErrorSums, sqnr_figure, warnings
from pipeline.core.report_types import OutputError, QuantizationCheck
from pipeline.metrics.fidelity import sqnr_db


def sums(*pairs: tuple[list[float], list[float]]) -> ErrorSums:
    total = ErrorSums()
    for reference, other in pairs:
        total.add(np.array(reference, np.float32), np.array(other, np.float32))
    return total


def test_sums_over_samples() -> None:
    """Signal 1 + 9 + 100, noise 1: 20.4 dB. Values 1, 3, 10: mean 14/3, variance 110/3 - 196/9 = 134/9."""
    found = sums(([1, 3], [1, 3]), ([10], [9])).result("y")
    assert found.sqnr_db == pytest.approx(10 * np.log10(110))
    assert (found.name, found.finite, found.max_error) == ("y", True, 1.0)
    assert found.max_error_in_std == pytest.approx(1 / np.sqrt(134 / 9))


def test_same_as_over_all_values_at_once() -> None:
    generator = np.random.default_rng(0)
    reference = generator.normal(size=(5, 7)).astype(np.float32)
    other = (reference + 0.1 * generator.normal(size=(5, 7))).astype(np.float32)
    total = ErrorSums()
    for pair in zip(reference, other, strict=True):
        total.add(*pair)
    assert total.sqnr_db == pytest.approx(sqnr_db(reference, other))
    assert total.std == pytest.approx(reference.astype(float).std())


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [([1, 2], [1, 2], LIMIT_DB), ([1, 2], [1, np.nan], -LIMIT_DB), ([0, 0], [0, 1], -LIMIT_DB)],
)
def test_ends_of_the_scale(reference: list[float], other: list[float], expected: float) -> None:
    assert sums((reference, other)).sqnr_db == expected


def output(name: str, sqnr: float, finite: bool = True) -> OutputError:
    return OutputError(name=name, finite=finite, sqnr_db=sqnr, max_error=1.0, max_error_in_std=1.0)


def test_a_broken_graph_is_said_loudly() -> None:
    outputs = (output("a", 30.0), output("b", -3.0), output("c", -LIMIT_DB, finite=False))
    check = QuantizationCheck(data="calibration", samples=8, outputs=outputs)
    assert warnings(check) == (
        "BROKEN: the quantized graph's output c is not finite on calibration samples.",
        "BROKEN: quantization noise in output b is larger than the output itself (SQNR -3.0 dB).",
    )
    assert (sqnr_figure(check).value, sqnr_figure(check).note) == (-LIMIT_DB, "worst output: c")
    assert warnings(check.model_copy(update={"outputs": outputs[:1]})) == ()


def test_an_output_that_is_the_same_everywhere_has_errors_too() -> None:
    """Of a constant 4 in its size, of a constant 0 as they are."""
    assert sums(([4, 4], [4, 6])).result("y").max_error_in_std == pytest.approx(0.5)
    assert sums(([0, 0], [0, 3])).result("y").max_error_in_std == pytest.approx(3.0)
    assert sums(([4, 4], [4, 4])).result("y").max_error_in_std == 0.0


def test_nan_equals_nan() -> None:
    """An unused place that both graphs fill with NaN or the same infinity is no error; signal 4, noise 1."""
    found = sums(([np.nan, -np.inf, 2], [np.nan, -np.inf, 1]))
    assert (found.sqnr_db, found.finite) == (pytest.approx(10 * np.log10(4)), True)
    assert not sums(([np.nan, 2], [0, 2])).finite
    assert not sums(([np.inf, 2], [-np.inf, 2])).finite
