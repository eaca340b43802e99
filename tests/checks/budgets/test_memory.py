"""What a run under the budget's limit makes of the peak that was seen."""

from __future__ import annotations

from typing import Any

import pytest
from measured import figure, measured

from pipeline.checks.budgets.memory import PEAK
from pipeline.core.report_types import FitResult, MemoryResult
from pipeline.core.types import Figure
from pipeline.devices.memory import BY_PEAK


def peak(**fit: Any) -> Figure:
    """Of a bundle whose peaks are 60 and 80 MB, tried under a limit of 100 MB."""
    memory = MemoryResult(
        load_ms=figure(1.0, "ms"),
        load_peak_mb=figure(60.0),
        run_peak_mb=figure(80.0),
        fit=FitResult(limit_mb=100.0, **fit) if fit else None,
    )
    found = PEAK.figure(measured(memory=memory))
    assert isinstance(found, Figure)
    return found


@pytest.mark.parametrize(
    ("fit", "value", "note"),
    [
        ({}, 80.0, ""),
        ({"fits": True, "how": "cgroup v2"}, 80.0, "loads and runs under a limit of 100 MB (cgroup v2)"),
        (
            {"fits": False, "how": "cgroup v2", "needs_mb": 125.0},
            125.0,
            "ended under a limit of 100 MB (cgroup v2); it runs under 125 MB",
        ),
        (
            {"fits": False, "how": "cgroup v1"},
            300.0,
            "ended under a limit of 100 MB (cgroup v1); it runs under none that was tried",
        ),
        (
            {"fits": True, "how": BY_PEAK, "reason": "no control group"},
            80.0,
            "within a limit of 100 MB (peak of anonymous memory, without a limit): no control group",
        ),
    ],
)
def test_what_was_tried_is_told_and_counts(fit: dict[str, Any], value: float, note: str) -> None:
    found = peak(**fit)
    assert (found.value, found.note) == (value, note)


def test_a_peak_beyond_the_limit_is_explained_by_its_parts() -> None:
    memory = MemoryResult(
        load_ms=figure(1.0, "ms"),
        load_peak_mb=figure(160.0),
        run_peak_mb=None,
        load_anonymous_mb=figure(40.0),
        load_file_mb=figure(120.0),
        fit=FitResult(limit_mb=100.0, fits=True, how="cgroup v1"),
    )
    parts, _ = PEAK.explain(100.0, measured(memory=memory))
    assert parts == (
        "load peak 160.0 MB: 40.0 MB anonymous, 120.0 MB file-backed",
        "loads and runs under a limit of 100 MB (cgroup v1)",
    )
