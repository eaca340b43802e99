"""Classifiers of texts and images in transformers.js: tiny models with random weights, and the README's own code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.clients import Environments, in_chromium, in_node, worst, worst_score

pytestmark = pytest.mark.slow
_SAME = 1e-3


def varied(model: object) -> object:
    """Its tables enlarged so that its answers differ."""
    import torch  # noqa: PLC0415

    with torch.no_grad():
        for parameter in model.parameters():  # type: ignore[attr-defined]
            if parameter.dim() == 2:
                parameter.mul_(4)
    return model


@pytest.fixture
def text_classifier(tiny_bert: Path, workspace: Path) -> Path:
    import torch  # noqa: PLC0415
    from transformers import BertConfig, BertForSequenceClassification  # noqa: PLC0415

    torch.manual_seed(0)
    folder = workspace / "texts"
    shutil.copytree(tiny_bert, folder)
    names = {0: "calm", 1: "glad", 2: "sad"}
    config = BertConfig.from_pretrained(tiny_bert, num_hidden_layers=1, id2label=names)
    varied(BertForSequenceClassification(config)).save_pretrained(folder)  # type: ignore[attr-defined]
    return folder


@pytest.fixture
def image_classifier(workspace: Path) -> Path:
    import torch  # noqa: PLC0415
    from transformers import ViTConfig, ViTForImageClassification  # noqa: PLC0415

    torch.manual_seed(0)
    folder, size = workspace / "images", {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    names = {0: "street", 1: "field", 2: "river"}
    config = ViTConfig(**size, intermediate_size=64, image_size=32, patch_size=8, id2label=names)
    varied(ViTForImageClassification(config)).save_pretrained(folder)  # type: ignore[attr-defined]
    steps = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2}
    steps |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(steps))
    (workspace / "photos").mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)):
        Image.fromarray(pixels).resize((32, 32)).save(workspace / f"photos/{number:02d}.png")
    return folder


def test_text_classification(edge, text_classifier, workspace, clients: Environments, tmp_path: Path) -> None:
    data = ("--calibration-data", "calibration.txt", "--calibration-samples", "16", "--eval-data", "evaluation.txt")
    done = edge("export", "texts", "--target", "lenient", *data, "--layout", "transformers.js", "-o", "out")
    assert done.returncode in (0, 1, 4), done.stderr
    bundle, modules = workspace / "out/bundle", clients.node_modules
    assert worst_score(bundle, lambda sample: in_node(bundle, sample, modules)) < _SAME
    assert worst_score(bundle, lambda sample: in_chromium(bundle, sample, modules, tmp_path / "page.png")) < _SAME


def test_image_classification(edge, image_classifier, workspace, clients: Environments, tmp_path: Path) -> None:
    """With the pipeline, and with ONNX Runtime alone and the README's own preparation of the golden image."""
    data = ("--calibration-data", "photos", "--calibration-samples", "16", "--eval-data", "photos")
    modules = clients.node_modules
    for layout, difference in (("transformers.js", worst_score), ("single", worst)):
        done = edge("export", "images", "--target", "lenient", *data, "--layout", layout, "-o", layout)
        assert done.returncode in (0, 1, 4), done.stderr
        bundle = workspace / layout / "bundle"
        assert difference(bundle, lambda sample: in_node(bundle, sample, modules)) < _SAME  # noqa: B023
        picture = tmp_path / f"{layout}.png"
        assert difference(bundle, lambda sample: in_chromium(bundle, sample, modules, picture)) < _SAME  # noqa: B023
