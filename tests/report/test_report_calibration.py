"""What calibration did not see, as the page and the terminal say it."""

from __future__ import annotations

import pytest

from pipeline.core.report_types import RangeCheck, Report
from pipeline.report.calibration import calibration_notes, range_sentence, range_warnings
from pipeline.report.html import html

STATIC = RangeCheck(
    samples=64, tensors=36, samples_outside=0.25, values_outside=3e-6, worst_tensor="h", worst_outside=0.00012
)
RARE = RangeCheck(samples=64, tensors=0, never_seen_channels=312, samples_never_seen=0.40625)


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (None, ""),
        (RangeCheck(samples=0, tensors=0), ""),
        (
            STATIC,
            "Calibration against 64 evaluation samples: 0.0003 % of the values of 36 activations lie outside their "
            "calibrated ranges, in 25 % of the samples (worst: 0.012 % of h).",
        ),
        (
            RARE,
            "Calibration against 64 evaluation samples: 41 % of the samples have inputs in 312 channels that "
            "calibration never saw active.",
        ),
    ],
)
def test_one_line_says_what_lies_outside(bare: Report, check: RangeCheck | None, sentence: str) -> None:
    report = bare.model_copy(update={"ranges": check})
    assert range_sentence(report) == sentence
    assert not sentence or sentence in html(report)


def test_much_is_warned_of() -> None:
    assert range_warnings(None) == range_warnings(STATIC) == ()
    assert range_warnings(STATIC.model_copy(update={"worst_outside": 0.1})) == (
        "calibration does not cover the evaluation data: 10 % of the values of h lie outside the calibrated range and "
        "are clipped. Calibrate on data like it (--calibration-data).",
    )
    assert range_warnings(RARE) == (
        "41 % of the evaluation samples have inputs in channels that calibration never saw active. Calibrate on data "
        "that has them (--calibration-data).",
    )


def test_notes_name_what_was_never_active() -> None:
    assert calibration_notes({}) == calibration_notes({"smooth": {"never_seen": 0, "channels": 9}}) == []
    assert calibration_notes({"smooth": {"never_seen": 2, "channels": 1000}, "quantize": {"never_active": ["z"]}}) == [
        "2 of 1000 input channels of products are zero on every calibration sample, and not smoothed: calibrate on "
        "samples that have them if later ones do.",
        "1 activation (z) is zero on every calibration sample: products find their range at run time, and convolutions "
        "stay in float.",
    ]


def test_products_that_find_their_ranges_at_run_time_are_told() -> None:
    assert calibration_notes({"quantize": {"at_run_time": 1}}) == [
        "1 product finds the ranges of inputs at run time: all convolutions run in float, beside which that costs next "
        "to nothing."
    ]
