"""What calibration did not see, in plain words."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.core.report_types import RangeCheck, Report
from pipeline.core.types import Json
from pipeline.report.text import count, number

_SHOWN = 3
_MANY = 0.01
"""Share of a tensor's values outside its range, or of samples with inputs that calibration never saw, from which on a
figure measured on these samples says that calibration was on others."""


def calibration_notes(metadata: Mapping[str, Mapping[str, Json]]) -> list[str]:
    """From the metadata of the stages by name: channels and tensors that were zero on every calibration sample."""
    smoothed, quantized = metadata.get("smooth", {}), metadata.get("quantize", {})
    channels = _channels(smoothed.get("never_seen", 0), smoothed.get("channels", 0))
    return [*channels, *_tensors(quantized), *_at_run_time(quantized.get("at_run_time", 0))]


def _channels(never_seen: int, channels: int) -> list[str]:
    if not never_seen:
        return []
    verb = "is" if never_seen == 1 else "are"
    return [
        f"{never_seen} of {count(channels, 'input channel')} of products {verb} zero on every calibration sample, "
        "and not smoothed: calibrate on samples that have them if later ones do."
    ]


def _tensors(metadata: Mapping[str, Json]) -> list[str]:
    names = metadata.get("never_active", [])
    if not names:
        return []
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return [
        f"{count(len(names), 'activation')} ({shown}) {'is' if len(names) == 1 else 'are'} zero on every calibration "
        "sample: products find their range at run time, and convolutions stay in float."
    ]


def _at_run_time(products: int) -> list[str]:
    if not products:
        return []
    return [
        f"{count(products, 'product')} find{'s' if products == 1 else ''} the ranges of inputs at run time: all "
        "convolutions run in float, beside which that costs next to nothing."
    ]


def range_sentence(report: Report) -> str:
    """How far calibration covers the evaluation data, in a line; empty if nothing rests on calibration."""
    check = report.ranges
    if check is None or not check.samples:
        return ""
    parts = []
    if check.tensors:
        worst = f" (worst: {_percent(check.worst_outside)} of {check.worst_tensor})" if check.worst_outside else ""
        parts.append(
            f"{_percent(check.values_outside)} of the values of {count(check.tensors, 'activation')} lie outside their "
            f"calibrated ranges, in {_percent(check.samples_outside)} of the samples{worst}"
        )
    if check.never_seen_channels:
        parts.append(
            f"{_percent(check.samples_never_seen)} of the samples have inputs in "
            f"{count(check.never_seen_channels, 'channel')} that calibration never saw active"
        )
    return f"Calibration against {count(check.samples, 'evaluation sample')}: {'; '.join(parts)}."


def range_warnings(check: RangeCheck | None) -> tuple[str, ...]:
    """What calibration does not cover, where it is much."""
    if check is None:
        return ()
    found = []
    if check.worst_outside > _MANY:
        found.append(
            f"calibration does not cover the evaluation data: {_percent(check.worst_outside)} of the values of "
            f"{check.worst_tensor} lie outside the calibrated range and are clipped. Calibrate on data like it "
            "(--calibration-data)."
        )
    if check.samples_never_seen > _MANY:
        found.append(
            f"{_percent(check.samples_never_seen)} of the evaluation samples have inputs in channels that calibration "
            "never saw active. Calibrate on data that has them (--calibration-data)."
        )
    return tuple(found)


def _percent(share: float) -> str:
    return f"{number(100 * share, 2)} %"
