"""Distilling a convolutional network in stages: what its blocks learn from, and teachers that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_specs import factory
from stages import run_pass

from pipeline.compress import TEACHER
from pipeline.compress.distill.config import Distill
from pipeline.compress.distill.run import run
from pipeline.core.artifact import Artifact
from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.model_spec import InputSpec, ModelSpec
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import Scheme, silent
from pipeline.data.samples import DATASET, write_samples

_NETWORK = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv, self.same = nn.Conv2d(inputs, outputs, 3, stride, 1), inputs == outputs

    def forward(self, x):
        y = torch.tanh(self.conv(x))
        return x + y if self.same else y


class Stages(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer1 = nn.Sequential(*[Block(3, 3) for _ in range(3)])
        self.layer2 = nn.Sequential(Block(3, 6, 2), Block(6, 6), Block(6, 6))
        self.head = nn.Linear(6, classes)

    def forward(self, x):
        return self.head(self.layer2(self.layer1(x)).mean((2, 3)))


def net():
    torch.manual_seed(0)
    return Stages(4).eval()


def net_of_five():
    return Stages(5).eval()
"""


@pytest.fixture
def images(tmp_path: Path) -> Artifact:
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    write_samples(folder, ({"x": generator.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(96)))
    (folder / DATASET).write_text(pretty_json({"name": "images", "labels": None, "samples": 96}))
    return Artifact(folder, "samples.training.1", "k", "d", {})


@pytest.fixture
def source(tmp_path: Path) -> ModelSpec:
    file = tmp_path / "staged_net.py"
    file.write_text(_NETWORK)
    return factory(f"{file}:net", path=tmp_path, inputs={"x": InputSpec(shape=("batch", 3, 8, 8))})


def _train(source: ModelSpec, images: Artifact, out: Path, layers: str, **teacher: str) -> dict[str, Any]:
    table = {"pass": "prune", "unit": "layers", "stacks": "layer1", "keep": [0], "samples": 16}
    (out / "pruned").mkdir(parents=True)
    inputs = run_pass(table, source, {"calibration": images}, out / "pruned" / "out")[1]
    config = Distill(losses={"hidden_mse": 1.0}, layers=layers, steps=20, batch_size=16, held_out=0.2, judge_samples=16)  # type: ignore[arg-type]
    values = {
        "pass": config.model_dump(mode="json"),
        **{
            "limits": {},
            "scheme": Scheme(name="fp32").model_dump(mode="json"),
        },
    }
    (out / "trained").mkdir()
    models = {MODEL: source, TEACHER: source.model_copy(update=teacher)}
    inputs = {**inputs, "training": images}
    return run(StageContext(values, inputs, out / "trained", silent, out / "scratch", models))


def test_uniform_matching_meets_maps_of_another_size(source: ModelSpec, images: Artifact, tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        _train(source, images, tmp_path / "uniform", "uniform")
    assert caught.value.message == (
        "distill: feature maps of student and teacher differ in size; projections are learned for vectors only."
    )
    assert 'layers = "kept" after pruning blocks' in caught.value.remedy


def test_kept_blocks_learn_from_what_they_stand_for(source: ModelSpec, images: Artifact, tmp_path: Path) -> None:
    facts = _train(source, images, tmp_path / "kept", "kept")
    assert facts["curve"][-1]["loss"] < facts["curve"][0]["loss"]


def test_another_teacher_has_no_kept_blocks(source: ModelSpec, images: Artifact, tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        _train(source, images, tmp_path / "other", "kept", digest="e")
    assert caught.value.message == (
        "distill: layers = 'kept' needs a teacher that the model was made from; 'net' is another model."
    )


def test_a_teacher_of_other_classes(source: ModelSpec, images: Artifact, tmp_path: Path) -> None:
    entry = source.entry.replace(":net", ":net_of_five")
    with pytest.raises(StageError) as caught:
        _train(source, images, tmp_path / "five", "uniform", entry=entry, digest="e")
    assert caught.value.message == "distill: the student gives 4 outputs, the teacher 5."
    assert caught.value.remedy == "Use a teacher with the same classes or embedding size."
