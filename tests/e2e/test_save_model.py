"""The compressed PyTorch model beside the bundle: another export, and transformers itself, load it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
import transformers
from safetensors.torch import load_model

from pipeline.compress.edits import replay

PRUNE = """
title = "Half of the layers, float"
scheme = "fp32"

[[passes]]
pass = "prune"
unit = "layers"
keep = [1]
samples = 16
"""
FACTORIZE = """
title = "Low rank, float"
scheme = "fp32"

[[passes]]
pass = "low_rank"
method = ["svd"]
layers = ["encoder.layer.0.intermediate.dense"]
rank = 4
samples = 16
"""


def notes(folder: Path) -> str:
    return " ".join(json.loads((folder / "report.json").read_text())["notes"])


def golden(folder: Path) -> np.ndarray:
    """The embedding that the bundle gives its first example."""
    return np.load(folder / "bundle/golden/0/output-0.npy")


@pytest.fixture(scope="module")
def pruned(export_once) -> Path:
    return export_once({"prune.toml": PRUNE}, "--recipe", "prune.toml", "--save-model")[0]


@pytest.fixture
def saved(pruned: Path, workspace: Path) -> Path:
    shutil.copytree(pruned, workspace / "out")
    assert "The compressed PyTorch model is in compressed-model/: transformers loads it" in notes(workspace / "out")
    return workspace / "out/compressed-model"


def test_everybody_may_read_what_is_published(pruned: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in pruned.rglob("*") if path.is_file()} == {0o644}


def test_transformers_builds_it_from_its_config(saved: Path) -> None:
    model, info = transformers.AutoModel.from_pretrained(saved, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.num_hidden_layers == len(model.encoder.layer) == 1
    assert transformers.AutoTokenizer.from_pretrained(saved)("the dog").input_ids
    assert str(saved.parent) not in (saved / "config.json").read_text()
    assert json.loads((saved.parent / "bundle/config.json").read_text())["num_hidden_layers"] == 1
    with torch.inference_mode():
        assert model(torch.tensor([[5, 6, 7]])).last_hidden_state.isfinite().all()


def test_another_export_takes_it_and_answers_alike(edge, tiny, saved: Path, workspace: Path) -> None:
    kept = saved.rename(workspace / "pruned")
    first = golden(workspace / "out")
    rest = [value for flag, value in zip(["", *tiny], tiny, strict=False) if "--model" not in (flag, value)]
    done = edge("export", "--model", str(kept), *rest, "--recipe", "fp32", "--output", "second")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(golden(workspace / "second"), first, atol=1e-5)


def test_nothing_was_compressed(edge, tiny) -> None:
    done = edge("export", *tiny, "--recipe", "fp32", "--save-model")
    assert done.returncode == 2
    assert "--save-model writes the compressed PyTorch model, but the recipe 'fp32' has no passes." in done.stderr


def test_what_a_config_cannot_say_comes_as_edits_which_give_the_model_back(edge, tiny, tiny_encoder, workspace) -> None:
    """As docs/passes.md shows it."""
    (workspace / "factorize.toml").write_text(FACTORIZE)
    done = edge("export", *tiny, "--recipe", "factorize.toml", "--save-model")
    assert done.returncode == 0, done.stderr
    folder = workspace / "out/compressed-model"
    assert sorted(path.name for path in folder.iterdir()) == ["edits.json", "weights.safetensors"]
    assert "BertConfig has no words for 'encoder.layer.0.intermediate.dense." in notes(workspace / "out")
    model = replay(
        transformers.AutoModel.from_pretrained(tiny_encoder), json.loads((folder / "edits.json").read_text())
    )
    load_model(model, folder / "weights.safetensors")
    hidden = model.eval()(torch.tensor([[5, 6, 7]])).last_hidden_state
    embedding = torch.nn.functional.normalize(hidden.mean(1))
    session = ort.InferenceSession(workspace / "out/bundle/model.onnx")
    ids = np.array([[5, 6, 7]])
    names = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feed = {entry.name: names[entry.name] for entry in session.get_inputs()}
    np.testing.assert_allclose(session.run(None, feed)[0], embedding.detach().numpy(), atol=1e-5)
