"""Tasks of many kinds of outputs, from the command line: networks that are trained here, with labels and without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

HEAD = '[head]\nblank = 0\nalphabet = "abcd"\n'


def trained(workspace: Path, name: str) -> list[str]:
    """The flags of an export of the network, whose data lie in the workspace."""
    from small_networks import factory, train  # noqa: PLC0415

    case = train(name, workspace)
    (workspace / f"{name}.py").write_text(factory(name, workspace / "weights.safetensors", case.x))
    for file in ("data", "calibration"):
        arrays = dict(np.load(workspace / f"{file}.npz"))
        key = "x" if name in ("texts", "voices") else "input"
        np.savez(workspace / f"{file}.npz", **{key if old == "x" else old: value for old, value in arrays.items()})
    (workspace / "recipes").mkdir()
    head = HEAD if name == "texts" else ""
    (workspace / "recipes/mine.toml").write_text(f'title = "Mine"\nscheme = "w8a8"\n{head}')
    return [
        *("--model", f"{name}.py:net", "--target", "lenient", "--recipe", "mine", "--output", "out"),
        *("--calibration-data", "calibration.npz", "--eval-data", "data.npz"),
    ]


@pytest.mark.parametrize(
    ("name", "task", "primary", "least"),
    [
        ("texts", "automatic-speech-recognition", "word_accuracy", 60),
        ("voices", "audio-frame-classification", "f1", 85),
        ("objects", "object-detection", "map_50_95", 30),
        pytest.param("depths", "depth-estimation", "", 60, marks=pytest.mark.slow),
        pytest.param("points", "keypoint-detection", "pck", 80, marks=pytest.mark.slow),
        pytest.param("signals", "audio-enhancement", "si_snr_db", 8, marks=pytest.mark.slow),
        pytest.param("actions", "regression", "", 60, marks=pytest.mark.slow),
    ],
)
def test_a_trained_network_is_judged(edge, workspace, name: str, task: str, primary: str, least: float) -> None:
    flags = trained(workspace, name)
    done = edge("export", *flags, "--task", task, "--budget", "max_accuracy_drop=5")
    assert done.returncode == 0, done.stdout + done.stderr
    (accuracy,) = json.loads((workspace / "out/report.json").read_text())["accuracy"]
    assert accuracy["labelled"]
    assert primary in ("", accuracy["primary"])
    scored = [score for key, score in accuracy["scores"].items() if key.endswith("_float") and "of_float" not in key]
    assert max(scored) > least
    assert accuracy["drop"] < 5
