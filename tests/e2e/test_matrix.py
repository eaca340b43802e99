"""Every kind of source under every scheme, from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

SCHEMES = ("fp32", "fp16", "w8a8-dynamic", "w8a8", "w8", "w4", "w4a8", "w4a8-dynamic", "w4a8-static")
LOWEST_SQNR_DB = {
    "fp16": 50.0,
    "w8a8-dynamic": 20.0,
    "w8a8": 15.0,
    "w8": 20.0,
    "w4": 5.0,
    "w4a8": 5.0,
    "w4a8-dynamic": 5.0,
    "w4a8-static": 5.0,
}
"""Of models with random weights, whose outputs depend little on their inputs; trained ones do better (see the docs)."""

FACTORY = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, groups=2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 9, 64), nn.ReLU(), nn.Linear(64, 5),
    )
"""
RECIPE = """
title = "A classifier of small images"
scheme = "{scheme}"
task = "image-classification"
[inputs.input]
shape = ["batch", 3, 16, 16]
[preprocessing]
rescale = 0.00392156862745098
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


@pytest.fixture(scope="session")
def vision(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Vision Transformer and a ResNet with random weights, for images of 16 x 16."""
    import torch  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
    )

    torch.manual_seed(0)
    vit = ViTConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=16,
        patch_size=4,
        num_labels=3,
        initializer_range=0.2,
    )
    resnet = ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic", num_labels=3, image_size=16
    )
    models = {"vit": ViTForImageClassification(vit), "resnet": ResNetForImageClassification(resnet)}
    root = tmp_path_factory.mktemp("vision")
    processing = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "resample": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    for name, model in models.items():
        model.eval().save_pretrained(root / name)
        (root / name / "preprocessor_config.json").write_text(json.dumps(processing))
    return {name: root / name for name in models}


@pytest.fixture
def images(workspace: Path) -> list[str]:
    """Flags for data of small images."""
    x = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    np.savez(workspace / "images.npz", x=x)
    return ["--calibration-data", "images.npz", "--calibration-samples", "16", "--eval-data", "images.npz"]


def _flags(source: str, scheme: str, workspace: Path, images: list[str], vision, tiny_bert, tiny, edge) -> list[str]:
    if source == "encoder":
        return [*tiny, "--recipe", scheme]
    if source == "text-classifier":
        return ["--model", str(_classifier(tiny_bert, workspace)), *tiny[2:], "--recipe", scheme]
    common = ["--target", "lenient", "--output", "out", *images]
    if source in vision:
        return ["--model", str(vision[source]), *common, "--recipe", scheme]
    (workspace / "nets.py").write_text(FACTORY)
    (workspace / "images.toml").write_text(RECIPE.format(scheme=scheme))
    if source == "factory":
        return ["--model", "nets.py:net", *common, "--recipe", "images.toml"]
    (workspace / "float.toml").write_text(RECIPE.format(scheme="fp32"))
    edge("export", "--model", "nets.py:net", *common, "--recipe", "float.toml")
    shutil.copy(workspace / "out/bundle/model.onnx", workspace / "model.onnx")
    return ["--model", "model.onnx", *common, "--recipe", "images.toml"]


def _classifier(tiny_bert: Path, workspace: Path) -> Path:
    import torch  # noqa: PLC0415
    from transformers import BertConfig, BertForSequenceClassification  # noqa: PLC0415

    folder = workspace / "classifier"
    shutil.copytree(tiny_bert, folder)
    config = BertConfig.from_pretrained(tiny_bert, num_labels=3)
    torch.manual_seed(0)
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("source", ["encoder", "text-classifier", "vit", "resnet", "factory", "onnx"])
def test_every_source_under_every_scheme(
    edge, tiny, tiny_bert, vision, images, workspace, source: str, scheme: str
) -> None:
    done = edge("export", *_flags(source, scheme, workspace, images, vision, tiny_bert, tiny, edge))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    assert report["scheme"]["name"] == scheme
    assert all(entry["reason"] for entry in report["coverage"]["left_in_float"])
    if scheme != "fp32":
        assert report["quantization"]["outputs"][0]["sqnr_db"] > LOWEST_SQNR_DB[scheme]
        widened = scheme == "fp16" or source == "resnet"  # convolutions stored in 8 bits run in float
        assert report["coverage"]["weights"]["value"] > 0 or widened
