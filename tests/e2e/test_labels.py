"""Names of classes in `labels.json`, of a factory that has none: from a label column, and from sub-folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_FACTORY = """
import torch
from torch import nn


def example_inputs():
    return {"x": torch.zeros(2, 3, 8, 8)}


def net():
    \"\"\"The class of the strongest colour.\"\"\"
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, OUTPUTS))
    with torch.no_grad():
        model[2].weight.copy_(4 * torch.eye(3)[:OUTPUTS] if OUTPUTS <= 3 else torch.randn(OUTPUTS, 3))
        model[2].bias.zero_()
    return Wrapped(model)


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)
"""
_RECIPE = """
title = "Colours"
scheme = "fp32"
task = "image-classification"

[inputs.x]
shape = ["batch", 3, 8, 8]

[preprocessing]
rescale = 0.00392156862745098
"""
COLOURS = {"red": 0, "green": 1, "blue": 2}


@pytest.fixture
def flags(workspace: Path) -> list[str]:
    (workspace / "net.py").write_text(_FACTORY.replace("OUTPUTS", "3"))
    (workspace / "many.py").write_text(_FACTORY.replace("OUTPUTS", "4"))
    (workspace / "colours.toml").write_text(_RECIPE)
    draw = np.random.default_rng(0)
    rows = ["file_name,label"]
    for number in range(30):
        name, channel = [*COLOURS.items()][number % 3]
        pixels = draw.integers(0, 100, (8, 8, 3), np.uint8)
        pixels[..., channel] += 100
        for place in (workspace / f"table/{number}.png", workspace / f"folders/{channel}-{name}/{number}.png"):
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place)
        rows.append(f"{number}.png,{channel}-{name}")
    (workspace / "table/labels.csv").write_text("\n".join(rows))
    return ["--target", "lenient", "--recipe", "colours.toml", "--output", "out", "--calibration-data", "table"]


@pytest.mark.parametrize("data", ["table", "folders"])
def test_names_of_labels_and_folders(edge, flags, workspace, data: str) -> None:
    done = edge("export", "net.py:net", *flags, "--eval-data", data)
    assert done.returncode in (0, 1), done.stderr
    assert json.loads((workspace / "out/bundle/labels.json").read_text()) == ["0-red", "1-green", "2-blue"]
    report = json.loads((workspace / "out/report.json").read_text())
    assert report["accuracy"][0]["scores"]["accuracy_float"] == 100
    told = any("Nothing but the labels names the model's 3 classes" in note for note in report["notes"])
    assert told == (data == "table")


def test_labels_that_leave_a_class_out_are_refused(edge, flags) -> None:
    done = edge("export", "many.py:net", *flags, "--eval-data", "table")
    assert done.returncode == 2
    assert "The labels name 3 classes, and the model, which names none, has 4." in done.stderr
