"""Channels pruned from the command line, of a PyTorch factory and of a Hugging Face network, to a checked bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import verify

FACTORY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.b, self.c = nn.Conv2d(16, 32, 3, groups=16), nn.Conv2d(16, 32, 3)
        self.head = nn.Linear(64, 5)

    def forward(self, input):
        x = torch.relu(self.norm(self.a(input)))
        return self.head(torch.cat([torch.relu(self.b(x)), torch.relu(self.c(x))], 1).mean((2, 3)))


def pruned():
    torch.manual_seed(0)
    return Net()
"""
RECIPE = """
title = "Half the multiply-accumulates"
scheme = "fp32"
task = "image-classification"
calibration = { samples = 24 }

[[passes]]
pass = "prune"
unit = "channels"
importance = "taylor"
target_macs = 0.51
ranking = "global"
steps = 2
round_to = 4
ignore = ["c"]
"""
INPUTS = """
[inputs.input]
shape = ["batch", 3, 16, 16]
[preprocessing]
rescale = 0.00392156862745098
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


@pytest.fixture
def flags(workspace: Path) -> list[str]:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)
    np.savez(workspace / "images.npz", x=x, y=generator.integers(0, 5, 32))
    (workspace / "recipes").mkdir()
    (workspace / "pruned.py").write_text(FACTORY)
    return [
        *("--target", "lenient", "--output", "out", "--recipe", "half"),
        *("--calibration-data", "images.npz", "--eval-data", "images.npz"),
    ]


def test_a_factory_at_half_its_macs(edge, workspace, flags) -> None:
    (workspace / "recipes/half.toml").write_text(RECIPE + INPUTS)
    done = edge("export", "--model", "pruned.py:pruned", *flags)
    assert done.returncode == 0, done.stderr
    (facts,) = json.loads((workspace / "out/report.json").read_text())["passes"]
    assert 0.4 < facts["macs_after"] / facts["macs_before"] <= 0.51
    assert [left["name"] for left in facts["skipped"]] == ["c", "head"]
    assert verify(workspace / "out/bundle") < 1e-5


@pytest.mark.slow
def test_a_network_of_transformers(edge, workspace, flags) -> None:
    import torch  # noqa: PLC0415
    from transformers import ResNetConfig, ResNetForImageClassification  # noqa: PLC0415

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 2],
        layer_type="basic",
        num_labels=5,
        image_size=32,
        downsample_in_first_stage=True,
    )
    ResNetForImageClassification(config).save_pretrained(workspace / "resnet")
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "resample": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (workspace / "resnet/preprocessor_config.json").write_text(json.dumps(processor))
    (workspace / "recipes/half.toml").write_text(
        RECIPE.replace('ignore = ["c"]\n', "").replace('importance = "taylor"', 'importance = "bn_scale"')
    )
    done = edge("export", "--model", "resnet", *flags)
    assert done.returncode == 0, done.stderr
    (facts,) = json.loads((workspace / "out/report.json").read_text())["passes"]
    assert facts["macs_after"] / facts["macs_before"] <= 0.51
    assert [left["name"] for left in facts["skipped"]] == ["classifier.1"]


def test_a_model_without_channels(edge, tiny, workspace) -> None:
    (workspace / "recipes").mkdir()
    text = RECIPE.replace('ignore = ["c"]\n', "").replace('task = "image-classification"\n', "")
    (workspace / "recipes/half.toml").write_text(text)
    done = edge("export", *tiny, "--recipe", "half")
    assert done.returncode == 3
    assert "prune: BertModel has no convolutions, so no channels." in done.stderr
