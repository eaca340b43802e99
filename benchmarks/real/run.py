"""One model through the command line, judged, and beside the peers'."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit

from benchmarks.real import judge, peers
from benchmarks.real.models import MODELS, RealModel

_LIMIT = 1.0
"""Points: the phone's `max_accuracy_drop`."""
_SLACK = 2.0
"""The judge's measure is not the task's own, letter for letter: a verdict is confirmed within this factor."""


@dataclass
class Result:
    """What came out of one model. `kept`: the judge's share of float's decisions; `right`: the shares of labels that
    float and the bundle have right, where there are any. `peer`: the faster of ONNX Runtime's
    own two files, which the ratios are against."""

    name: str
    code: int
    seconds: float
    failed: list[str] = field(default_factory=list)
    drop: float | None = None
    kept: float | None = None
    right: tuple[float, float] | None = None
    peers: dict[str, dict[str, float]] = field(default_factory=dict)
    sqnr_db: float = float("nan")
    mb: float = 0.0
    float_mb: float = 0.0
    speed: float = 0.0
    message: str = ""

    @property
    def passing(self) -> bool:
        """A bundle whose accuracy verdict the judge confirms."""
        if self.code not in {0, 1, 4} or self.kept is None:  # 4: a loaded machine decides no speed
            return False
        lost = 100 * (1 - self.kept if self.right is None else self.right[0] - self.right[1])
        refused = any(name in self.failed for name in ("max_accuracy_drop", "min_agreement", "min_top10_overlap"))
        return lost > _LIMIT / _SLACK if refused else lost <= _LIMIT * _SLACK

    @property
    def peer(self) -> str | None:
        return max(self.peers, key=lambda name: self.peers[name]["speed"]) if self.peers else None

    def line(self) -> str:
        said = f"{self.name:<16} exit {self.code} {'ok ' if self.passing else 'BAD'} {self.seconds:4.0f} s"
        if self.kept is None:
            return f"{said}  {self.message}"
        said += f"  drop {self.drop} kept {100 * self.kept:.2f}  SQNR {self.sqnr_db:.1f}"
        said += f"  MB {self.float_mb:.3f}>{self.mb:.3f}"
        said += f"  speed {self.speed:.2f}  fails {self.failed}"
        for name, peer in self.peers.items():
            said += (
                f"\n{'':18}{name}: gain {self.sqnr_db - peer['sqnr_db']:+.1f} dB, size {self.mb / peer['mb']:.3f}, "
                f"speed {self.speed_against(name):.3f}  ({peer['sqnr_db']:.1f} dB, {peer['mb']:.3f} MB, "
                f"{peer['speed']:.2f}x, kept {100 * peer['kept']:.2f})"
            )
        return said

    def speed_against(self, peer: str) -> float:
        """The peer's time over the bundle's."""
        return self.peers[peer]["ours"]


@cache
def result(name: str) -> Result:
    """Exports, judges and times; the bundle is left in the folder that EDGE_REAL_OUT names, if any. A model that the
    judge cannot run has not passed, and the others are measured all the same."""
    with tempfile.TemporaryDirectory(prefix="edge-real-") as scratch:
        try:
            return _measure(MODELS[name], Path(os.environ.get("EDGE_REAL_OUT", scratch)) / name)
        except Exception as error:  # noqa: BLE001  # as above; the trace says where
            traceback.print_exc()
            return Result(name, -1, 0.0, message=f"{type(error).__name__}: {error}")


def _measure(model: RealModel, place: Path) -> Result:
    place.mkdir(parents=True, exist_ok=True)
    calibration, evaluation = model.samples()
    np.savez(place / "calibration.npz", **calibration)
    np.savez(place / "evaluation.npz", **evaluation)
    begin = time.perf_counter()
    done = subprocess.run(_command(model, place), capture_output=True, text=True, check=False)
    (place / "log.txt").write_text(f"{done.stdout}\n{done.stderr}", encoding="utf-8")
    found = Result(model.name, done.returncode, time.perf_counter() - begin)
    bundle = next((place / "out").rglob("metadata.json"), None)
    if done.returncode not in {0, 1, 4} or bundle is None:
        found.message = " | ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-4:])
        return found
    _read_report(found, json.loads(done.stdout))
    _judge(found, model, bundle.parent, (calibration, evaluation), place)
    (place / "result.json").write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")
    return found


def _command(model: RealModel, place: Path) -> list[str]:
    options = ["-m", str((model.source or model.file)()), "-o", str(place / "out"), "--json"]
    options += ["--calibration-data", str(place / "calibration.npz"), "--eval-data", str(place / "evaluation.npz")]
    if model.task:
        options += ["--task", model.task]
    if model.recipe:
        recipe = place / "recipe.toml"
        recipe.write_text(_toml(model), encoding="utf-8")
        options += ["-r", str(recipe)]
    return [sys.executable, "-m", "pipeline", "export", *options]


def _toml(model: RealModel) -> str:
    return tomlkit.dumps({"title": model.what, "scheme": "w8a8", **model.recipe})


def _read_report(found: Result, report: Mapping[str, Any]) -> None:
    found.drop = max((scores["drop"] for scores in report["accuracy"]), default=None)
    found.failed = [check["metric"] for check in report["budgets"] if check["verdict"] == "FAIL" and check["required"]]


def _judge(found: Result, model: RealModel, bundle: Path, halves: tuple[Any, Any], place: Path) -> None:
    calibration, evaluation = (
        judge.Samples({name: array for name, array in half.items() if name != "y"}, model.states) for half in halves
    )
    given = model.file()
    of_float = judge.session(given)
    reference = judge.answers(of_float, evaluation)
    ours = judge.bundle_session(bundle)
    outputs = judge.answers(ours, evaluation)
    found.kept, found.sqnr_db = model.kept(reference, outputs), judge.sqnr_db(reference, outputs)
    if model.right is not None:
        labels = halves[1]["y"].tolist()
        found.right = (model.right(reference, labels), model.right(outputs, labels))
    found.mb, found.float_mb = _mb(bundle / "model.onnx"), _mb(given)
    files = peers.made(given, calibration, place)
    sessions = {"float": of_float, "ours": ours, **{name: judge.session(file) for name, file in files.items()}}
    times = peers.timed(sessions, evaluation)
    found.speed = times.ratio("float", "ours")
    for name, file in files.items():
        theirs = judge.answers(sessions[name], evaluation)
        found.peers[name] = {
            "sqnr_db": judge.sqnr_db(reference, theirs),
            "kept": model.kept(reference, theirs),
            "mb": _mb(file),
            "speed": times.ratio("float", name),
            "ours": times.ratio(name, "ours"),
        }


def _mb(model: Path) -> float:
    """The file and its external data."""
    return sum(file.stat().st_size for file in model.parent.glob(f"{model.name}*") if file.name in _own(model)) / 1e6


def _own(model: Path) -> set[str]:
    return {model.name, f"{model.name}.data", f"{model.name}_data"}
