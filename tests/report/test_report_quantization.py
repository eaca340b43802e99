"""The quantized graph against the float one, as the page and the terminal say it."""

from __future__ import annotations

from pipeline.core.report_types import OutputError, QuantizationCheck, Report
from pipeline.report.html import html
from pipeline.report.text import quantization_sentence, sqnr_text

LOGITS = OutputError(name="logits", finite=True, sqnr_db=31.26, max_error=0.125, max_error_in_std=0.5)
SAME = OutputError(name="boxes", finite=True, sqnr_db=300.0, max_error=0.0, max_error_in_std=0.0)
BROKEN = OutputError(name="mask", finite=False, sqnr_db=-300.0, max_error=0.0, max_error_in_std=0.0)


def checked(report: Report) -> Report:
    check = QuantizationCheck(data="calibration", samples=64, outputs=(SAME, LOGITS), scores={"agreement": 0.96875})
    return report.model_copy(update={"quantization": check})


def test_signal_to_noise_in_words() -> None:
    assert [sqnr_text(output) for output in (LOGITS, SAME, BROKEN)] == ["31.3 dB", "identical", "not finite"]


def test_one_line_names_the_worst_output(bare: Report) -> None:
    assert quantization_sentence(bare) == ""
    assert quantization_sentence(checked(bare)) == (
        "Quantized against float on 64 calibration samples: SQNR 31.3 dB, largest error 0.125 (logits), "
        "agreement 0.9688."
    )


def test_the_page_has_a_row_per_output(bare: Report) -> None:
    assert "Quantized graph against the float one" not in html(bare)
    page = html(checked(bare))
    assert "31.3 dB" in page
    assert "identical" in page
    assert "On 64 calibration samples; agreement 0.9688." in page
