"""A class for every pixel, from the command line: a small network that is trained here, and a SegFormer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NET = """
from torch import nn

def net():
    import torch
    from safetensors.torch import load_file

    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 3, 1)
    )
    if WEIGHTS:
        model.load_state_dict(load_file(WEIGHTS))
    return model
"""
RECIPE = """
title = "Pixels"
scheme = "w8a8"
task = "image-segmentation"
calibration = { samples = 16 }
[inputs.input]
shape = ["batch", 3, 32, 32]
[preprocessing]
resize = [32, 32]
rescale = 0.00392156862745098
"""


def scenes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 32, 32, 3] of a grey ground, a reddish and a bluish rectangle, with noise; classes 0, 1, 2."""
    generator = np.random.default_rng(seed)
    images = generator.integers(90, 160, (count, 1, 1, 1)) + np.zeros((count, 32, 32, 3))
    masks = np.zeros((count, 32, 32), np.uint8)
    for number in range(count):
        for kind in (1, 2):
            top, left = generator.integers(0, 20, 2)
            height, width = generator.integers(6, 13, 2)
            images[number, top : top + height, left : left + width, 2 * (kind - 1)] += 60
            masks[number, top : top + height, left : left + width] = kind
    return np.clip(images + generator.normal(0, 12, images.shape), 0, 255).astype(np.uint8), masks


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `NET`, trained for some seconds."""
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    scope: dict[str, object] = {"WEIGHTS": ""}
    exec(NET, scope)  # noqa: S102  # the text above
    torch.manual_seed(0)
    model = scope["net"]()  # type: ignore[operator]
    images, masks = scenes(192, 1)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    y = torch.from_numpy(masks).long()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(90):
        part = slice(32 * (step % 6), 32 * (step % 6) + 32)
        logits = torch.nn.functional.interpolate(model(x[part]), (32, 32), mode="bilinear")
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, y[part]).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("weights") / "pixels.safetensors"
    save_file(model.state_dict(), path)
    return path


def write_scenes(folder: Path, count: int, masks: bool = True) -> None:
    images, labels = scenes(count, 2)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, (image, mask) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / f"images/{number:02}.png")
        if masks:
            Image.fromarray(mask).save(folder / f"masks/{number:02}.png")


def test_a_trained_network_is_judged_by_its_pixels(edge, workspace, weights) -> None:
    write_scenes(workspace / "scenes", 24)
    (workspace / "nets.py").write_text(f'WEIGHTS = "{weights}"\n{NET}')
    (workspace / "recipes").mkdir()
    (workspace / "recipes/pixels.toml").write_text(RECIPE)
    flags = (
        "--model",
        "nets.py:net",
        "--target",
        "lenient",
        "--recipe",
        "pixels",
        "--calibration-data",
        "scenes/images",
    )
    done = edge("export", *flags, "--eval-data", "scenes", "--output", "out", "--budget", "max_accuracy_drop=2")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    (accuracy,) = report["accuracy"]
    assert (accuracy["primary"], accuracy["labelled"], accuracy["samples"]) == ("miou", True, 24)
    assert accuracy["scores"]["miou_float"] > 70
    assert accuracy["scores"]["pixel_agreement"] > 0.97
    assert accuracy["drop"] == pytest.approx(accuracy["scores"]["miou_float"] - accuracy["scores"]["miou"])
    (workspace / "bad").mkdir()
    write_scenes(workspace / "bad/set", 4)
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(workspace / "bad/set/masks/00.png")
    done = edge("export", *flags, "--eval-data", "bad/set")
    assert done.returncode == 2
    assert "The evaluation data has the label 9; the model has 3 classes (0 to 2)." in done.stderr


@pytest.mark.slow
def test_a_segformer(edge, workspace, tmp_path_factory) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("segformers") / "tiny-segformer"
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[32, 64],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=64,
        num_labels=3,
        initializer_range=0.3,
    )
    SegformerForSemanticSegmentation(config).eval().save_pretrained(folder)
    processor = {
        "image_processor_type": "SegformerImageProcessor",
        "size": {"height": 32, "width": 32},
        "resample": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
        "do_reduce_labels": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    write_scenes(workspace / "scenes", 8)  # class 0 is not scored, 1 and 2 are the model's 0 and 1
    flags = ("--model", str(folder), "--target", "lenient", "--recipe", "w8a8", "--calibration-data", "scenes/images")
    done = edge("export", *flags, "--eval-data", "scenes", "--output", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    (accuracy,) = json.loads((workspace / "out/report.json").read_text())["accuracy"]
    assert accuracy["primary"] == "miou"
    assert accuracy["scores"]["pixel_agreement"] > 0.8
    Image.fromarray(np.full((32, 32), 4, np.uint8)).save(workspace / "scenes/masks/00.png")
    done = edge("export", *flags, "--eval-data", "scenes", "--dry-run")
    assert done.returncode == 2
    assert (
        "Sample 1 of the data set 'scenes' has pixels of the class 3; the model has 3 classes (0 to 2)." in done.stderr
    )
