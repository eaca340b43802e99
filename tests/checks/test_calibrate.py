"""Costs that are fitted to times, and the networks that are timed."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest

from pipeline.checks import calibrate as module
from pipeline.checks.calibrate import Probed, calibrate, fitted, median_error
from pipeline.checks.calibration_probes import probes
from pipeline.cli import devices
from pipeline.cli.main import main
from pipeline.config.loading import load_target, shipped
from pipeline.config.target import Calibration, Costs
from pipeline.core.errors import UsageError
from pipeline.devices import runner_of
from pipeline.forecast.latency import LatencyEstimate, estimate_latency, milliseconds
from pipeline.forecast.work import KINDS, Work

PHONE = load_target("phone")
TRUE = Costs(**dict(zip(KINDS, (4, 6, 50, 300, 20, 150, 250, 3, 9), strict=True)))


def works() -> list[Work]:
    """A network for each kind that has most of its work in it, and a little of all others."""
    each = dict(zip(KINDS, (1e9, 1e9, 1e8, 1e7, 2e8, 1e7, 1e7, 1e3, 4e2), strict=True))
    return [Work(**{kind: amount * (1 if kind == most else 0.01) for kind, amount in each.items()}) for most in KINDS]


def probed(factors: list[float]) -> list[Probed]:
    return [
        Probed(str(place), work, factor * sum(milliseconds(TRUE, work)))
        for place, (work, factor) in enumerate(zip(works(), factors, strict=True))
    ]


def test_costs_are_found_again() -> None:
    found = fitted(works(), [sum(milliseconds(TRUE, work)) for work in works()])
    assert np.allclose([getattr(found, kind) for kind in KINDS], [getattr(TRUE, kind) for kind in KINDS], rtol=0.05)


def test_times_that_do_not_fit_together_are_far_from_each_other_s_prediction() -> None:
    even = median_error([*probed([1.0] * 9), *probed([1.0] * 9)])
    odd = median_error([*probed([1.0] * 9), *probed([4.0] * 9)])
    assert even < 0.05
    assert odd > module.WORST


def test_the_networks_run_and_are_always_the_same() -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    again = probes()
    for name, (model, feed) in probes().items():
        assert model.SerializeToString() == again[name][0].SerializeToString()
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (answer,) = session.run(None, feed)
        assert answer.size > 1
        assert np.isfinite(answer).all()


def test_a_device_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the networks, on this machine."""
    few = {name: network for name, network in probes().items() if name in ("mobile-tiny", "with-floats-tiny")}
    monkeypatch.setattr(module, "probes", lambda: few)
    monkeypatch.setattr(module, "_SECONDS", 0.3)
    found, networks = calibrate(runner_of(PHONE), PHONE)
    assert found.threads == 1
    assert found.source.startswith("measured by `edge devices calibrate` on ")
    assert [each.name for each in networks] == ["mobile-tiny", "with-floats-tiny"]
    assert all(each.ms > 0 and each.fitted_ms > 0 for each in networks)
    assert networks[0].work.depthwise > 0
    assert networks[1].work.float_calls > 0


def test_a_runner_without_times_is_refused() -> None:
    emulator = SimpleNamespace(lacks={"times": "an emulator's time is not the device's"})
    with pytest.raises(UsageError) as caught:
        calibrate(emulator, PHONE)  # type: ignore[arg-type]
    assert caught.value.message == "The runner 'host' cannot calibrate: an emulator's time is not the device's."


CALIBRATION = Calibration(threads=1, costs=TRUE, source="measured by a test")


def test_it_is_written_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "targets").mkdir()
    shutil.copy(shipped("targets") / "phone.toml", tmp_path / "targets" / "mine.toml")
    monkeypatch.setattr(devices, "measure_costs", lambda *_: (CALIBRATION, probed([1.0] * 9) * 2))
    assert main(["devices", "calibrate", "host", "--target", "mine", "--write"]) == 0
    mine = load_target("mine")
    assert mine.calibration == CALIBRATION
    (work, *_) = works()
    found = estimate_latency(work, mine)
    assert isinstance(found, LatencyEstimate)
    assert found.p50.typical == pytest.approx(sum(milliseconds(TRUE, work)))
    assert found.said_by.endswith("median error 14%; measured by a test")


def test_times_that_do_not_fit_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "targets").mkdir()
    shutil.copy(shipped("targets") / "phone.toml", tmp_path / "targets" / "mine.toml")
    unlike = [*probed([1.0] * 9), *probed([4.0] * 9)]
    monkeypatch.setattr(devices, "measure_costs", lambda *_: (CALIBRATION, unlike))
    assert main(["devices", "calibrate", "host", "--target", "mine", "--write"]) == 3
    assert load_target("mine").calibration is None
    assert "The times do not fit together (more than 30%)" in capsys.readouterr().err


def test_costs_of_other_threads_are_not_used() -> None:
    (work, *_) = works()
    given = PHONE.model_copy(update={"calibration": CALIBRATION.model_copy(update={"threads": 4})})
    assert estimate_latency(work, given) == estimate_latency(work, PHONE)
