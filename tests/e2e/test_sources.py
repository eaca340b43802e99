"""Exports of models that are no Hugging Face folders: PyTorch factories, ONNX files, pickles."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import verify

FACTORY = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    head = [nn.Linear(8 * 49, 64), nn.ReLU(), nn.Linear(64, 5)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), *head)
"""
RECIPE = """
title = "A classifier of small images"
scheme = "{scheme}"
task = "image-classification"
calibration = {{ samples = 12 }}
[inputs.input]
shape = ["batch", 3, 16, 16]
[preprocessing]
rescale = 0.00392156862745098
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""
DATA = Path(os.environ.get("EDGE_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture
def images(workspace):
    """The flags of an export of `nets.py:net` on made-up labelled images, from uint8 arrays."""
    (workspace / "nets.py").write_text(FACTORY)
    (workspace / "recipes").mkdir()
    for scheme in ("fp32", "w8a8-dynamic", "w4"):
        (workspace / f"recipes/{scheme}-images.toml").write_text(RECIPE.format(scheme=scheme))
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    np.savez(workspace / "images.npz", x=x, y=generator.integers(0, 5, 24))
    return [
        *("--target", "lenient", "--output", "out"),
        *("--calibration-data", "images.npz", "--eval-data", "images.npz"),
    ]


def _report(workspace: Path) -> dict:
    return json.loads((workspace / "out/report.json").read_text())


@pytest.mark.parametrize("scheme", ["fp32", pytest.param("w8a8-dynamic", marks=pytest.mark.slow), "w4"])
def test_a_factory_is_exported(edge, images, workspace, scheme) -> None:
    done = edge("export", "--model", "nets.py:net", "--recipe", f"{scheme}-images", *images)
    assert done.returncode == 0, done.stderr
    assert _report(workspace)["accuracy"][0]["labelled"]
    metadata = json.loads((workspace / "out/bundle/metadata.json").read_text())
    assert [(entry["name"], entry["shape"]) for entry in metadata["graphs"][0]["inputs"]] == [
        ("input", ["batch", 3, 16, 16])
    ]
    assert metadata["preprocessing"] == ["preprocessing.json"]
    assert verify(workspace / "out/bundle") < 1e-5


def test_changed_weights_are_traced_again(edge, images, workspace) -> None:
    flags = ("--model", "nets.py:net", "--recipe", "fp32-images", *images)
    edge("export", *flags)
    (workspace / "nets.py").write_text(FACTORY.replace("manual_seed(0)", "manual_seed(1)"))
    states = {row["stage"]: row["state"] for row in json.loads(edge("export", *flags, "--dry-run", "--json").stdout)}
    assert states["trace.float"] == "run"


def test_an_onnx_file_is_exported(edge, images, workspace) -> None:
    edge("export", "--model", "nets.py:net", "--recipe", "fp32-images", *images)
    shutil.copy(workspace / "out/bundle/model.onnx", workspace / "given.onnx")
    done = edge("export", "--model", "given.onnx", "--recipe", "w8a8-dynamic-images", *images)
    assert done.returncode == 0, done.stderr
    report = _report(workspace)
    assert (report["model"], report["accuracy"][0]["drop"]) == ("given", pytest.approx(0, abs=25))
    assert edge("gate", "--model", "given.onnx", "--target", "lenient", "--output", "out").returncode == 0


def test_an_onnx_file_is_not_pruned(edge, small, workspace) -> None:
    (workspace / "cut.toml").write_text('title = "Half"\nscheme = "fp32"\n[[passes]]\npass = "prune"\nratio = 0.5\n')
    done = edge("export", *small, "--recipe", "cut.toml")
    assert done.returncode == 2
    assert "has compression passes, which need a PyTorch model; 'small' is an ONNX file." in done.stderr


def test_a_factory_without_samples_is_told_how_to_give_them(edge, images, workspace) -> None:
    text = (workspace / "recipes/w4-images.toml").read_text()
    (workspace / "recipes/bare.toml").write_text(text[: text.index("[preprocessing]")])
    done = edge("export", "--model", "nets.py:net", "--recipe", "bare", "--target", "lenient")
    assert done.returncode == 2
    assert "Nothing says how image samples become inputs of 'net', and none were given with --eval-data." in done.stderr


def test_images_of_mixed_sizes(edge, images, workspace) -> None:
    from PIL import Image  # noqa: PLC0415

    (workspace / "mixed").mkdir()
    for number, size in enumerate((16, 16, 20)):
        Image.new("RGB", (size, size), (size, 0, 0)).save(workspace / f"mixed/{number}.png")
    done = edge("export", "--model", "nets.py:net", "--recipe", "w4-images", *images, "--eval-data", "mixed")
    assert done.returncode == 2
    assert "'input' has the shape (1, 3, 20, 20); the model takes [batch, 3, 16, 16]." in done.stderr


def test_example_inputs_that_do_not_fit(edge, images, workspace) -> None:
    text = (workspace / "recipes/fp32-images.toml").read_text()
    wrong = text.replace("16, 16]", "20, 16]").replace("[preprocessing]", "[preprocessing]\nresize = [20, 16]")
    (workspace / "recipes/wrong.toml").write_text(wrong)
    done = edge("export", "--model", "nets.py:net", "--recipe", "wrong", *images, "--random-calibration")
    assert done.returncode == 2
    assert "The model cannot run its example inputs (input float32 [2, 3, 20, 16])" in done.stderr


def test_a_pickle_is_read_only_if_asked_for(edge, tiny, tiny_encoder, workspace) -> None:
    from safetensors.torch import load_file  # noqa: PLC0415

    folder = workspace / "pickled"
    shutil.copytree(tiny_encoder, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    flags = ["--model", str(folder), *tiny[2:], "--recipe", "fp32"]
    refused = edge("export", *flags)
    assert refused.returncode == 2
    assert "add --allow-pickle" in refused.stderr
    done = edge("export", *flags, "--allow-pickle")
    assert done.returncode == 0, done.stderr
    assert "The weights were read from a pickle (--allow-pickle)." in _report(workspace)["notes"]


@pytest.mark.real_data
def test_a_keyword_spotter_is_exported(edge, workspace) -> None:
    if not DATA.is_dir():
        pytest.skip("EDGE_DATA names no folder of data sets")
    (workspace / "recipes").mkdir()
    (workspace / "recipes/kws.toml").write_text(
        'title = "Keywords"\nscheme = "fp32"\ntask = "image-classification"\n[inputs.x]\nshape = ["batch", 1, 49, 10]\n'
    )
    (samples,) = (DATA / "kws").glob("*.npz")
    done = edge(
        *("export", "--model", f"{DATA / 'models.py'}:kws", "--recipe", "kws", "--target", "lenient"),
        *("--eval-data", str(samples), "--output", "out"),
    )
    assert done.returncode == 0, done.stderr
    scores = _report(workspace)["accuracy"][0]["scores"]
    assert scores["accuracy"] == pytest.approx(90.4, abs=0.3)


PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "resample": 2}


def test_images_are_as_large_as_the_processor_makes_them(edge, images, workspace) -> None:
    """A ResNet's config names no size; a Vision Transformer of another size than its processor's cannot run."""
    import torch  # noqa: PLC0415
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig  # noqa: PLC0415
    from transformers import ViTForImageClassification as ViT  # noqa: PLC0415

    torch.manual_seed(0)
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)
    vit = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32, num_labels=5
    )
    for name, model in (("resnet", ResNetForImageClassification(resnet)), ("vit", ViT(vit))):
        model.eval().save_pretrained(workspace / name)
        (workspace / name / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "do_normalize": False}))
    flags = ["--recipe", "w8a8", "--calibration-samples", "24", *images]
    done = edge("export", "--model", "resnet", *flags)
    assert done.returncode == 0, done.stderr
    signature = json.loads((workspace / "out/bundle/metadata.json").read_text())
    assert signature["graphs"][0]["inputs"][0]["shape"][1:] == [3, 16, 16]
    refused = edge("export", "--model", "vit", *flags)
    assert refused.returncode == 2
    assert "preprocessor_config.json makes 16 x 16." in refused.stderr
