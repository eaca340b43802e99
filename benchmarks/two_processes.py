"""The same training on one process and on two, at equal global batch: how far the loss curves are apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.row import Measured, Row
from benchmarks.texts import training_text

_TEXTS = 1500
_RECIPE = """
title = "Three layers, trained for a moment"
scheme = "fp32"

[[passes]]
pass = "prune"
unit = "layers"
keep = [0, 2, 5]
samples = 16

[[passes]]
pass = "distill"
steps = 20
batch_size = 32
judge_samples = 16
evaluate_every = 20
losses = { hidden_mse = 10.0, embedding_cosine = 1.0, similarity = 1.0, neighbours = 0.1 }
"""
_LAUNCH = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"  # gloo without GPUs


def largest_difference() -> Measured:
    """Of the weighted loss at any of 20 steps, beside the loss at the first step."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "two.toml").write_text(_RECIPE, encoding="utf-8")
        lines = training_text(place).read_text(encoding="utf-8").split("\n")[:: 70_000 // _TEXTS]
        (place / "training.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        alone = _curve(place, "one", [sys.executable, "-m", "pipeline"])
        launch = [sys.executable, "-m", "accelerate.commands.launch", *_LAUNCH.split(), "-m", "pipeline"]
        together = _curve(place, "two", launch)
    return Measured(max(abs(a - b) for a, b in zip(alone, together, strict=True)), alone[0])


def _curve(place: Path, name: str, command: list[str]) -> list[float]:
    arguments = ["export", "--recipe", "two.toml", "--training-data", "training.txt", "--output", name]
    variables = {**os.environ, "EDGE_STORE": str(place / f"{name}.store"), "OMP_NUM_THREADS": "1"}
    variables["PYTHONPATH"] = str(Path(__file__).parents[1])
    # the verdict does not matter: after twenty steps the model fails its budgets
    subprocess.run([*command, *arguments], cwd=place, env=variables, capture_output=True, check=False)
    report = json.loads((place / name / "report.json").read_text(encoding="utf-8"))
    (trained,) = (step for step in report["passes"] if step["pass"] == "distill")  # noqa: S105  # a pass, no password
    return [point["loss"] for point in trained["curve"]]


ROWS = [Row("distill.two_process.max_diff", "of the loss", "loss at the first step", largest_difference)]
"""Limit: 1e-3."""
