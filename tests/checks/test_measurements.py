"""What a measurement goes on for, and what is said of where it was made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pipeline.checks.measurements
from pipeline.checks.float_reference import FloatReference
from pipeline.checks.left_in_float import Reasons
from pipeline.checks.measurements import Case, _latency, _limits, _runner_notes, _Single
from pipeline.config.loading import load_target
from pipeline.core.types import Evidence, Scheme, silent
from pipeline.devices.host_runner import HOST
from pipeline.devices.worker import Subject
from pipeline.runtime.behaviour import Behaviour


class Board:
    """Another machine."""

    evidence = Evidence.DEVICE

    def run(self, request: Any, timeout_s: float) -> dict[str, Any]:
        return HOST.run(request, timeout_s)

    def info(self) -> Any:
        return HOST.info().model_copy(update={"cpu": "Cortex-A78"})


def case(runner: str = "host", reference: FloatReference | None = None) -> Case:
    target = load_target("phone").model_copy(update={"runner": runner})
    return Case(Path("bundle"), target, Scheme(name="fp32"), Reasons(), reference)


def of_float() -> FloatReference:
    behaviour = Behaviour(family="embedding", batch="free", padding="none")
    return FloatReference(*(Path(name) for name in ("float", "evaluation", "reference", "source")), behaviour)


def test_a_timing_goes_on_for_limits_that_its_runner_can_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the phone target, host evidence decides the speed-up; a device decides the latency too."""
    assert _limits(case(reference=of_float()), beside_float=True) == {"min_speedup": 1.0}
    assert _limits(case(), beside_float=False) == {}
    monkeypatch.setattr(Case, "runner", property(lambda _: Board()))
    assert _limits(case("board", of_float()), beside_float=True) == {"min_speedup": 1.0, "latency_p95_ms": 500.0}


def test_a_target_bounds_the_measurement_of_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(
        pipeline.checks.measurements,
        "measure_latency",
        lambda *arguments, **_: asked.append(arguments[4]),
    )
    subject = Subject("model.onnx", "inputs.npz")
    for seconds in (None, 2.5):
        own = case()
        target = own.target.model_copy(update={"measure_seconds": seconds})
        _latency(replace(own, target=target), subject, [_Single("model", subject, None)], lambda _: silent)
    assert asked == [60.0, 2.5]


def test_a_report_says_which_machine_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _runner_notes(case()) == []
    monkeypatch.setattr(Case, "runner", property(lambda _: Board()))
    assert _runner_notes(case("board")) == [
        "Latency, memory, accuracy and the profile were measured by the runner 'board' (Cortex-A78)."
    ]
