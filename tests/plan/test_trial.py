"""What a few samples tell before anything long begins: by --dry-run, of every kind of source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.job import Job
from pipeline.core.errors import UsageError
from pipeline.plan.build import make_plan

NETWORK = """import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Linear(8, {outputs})
def example_inputs():
    return {{"input": torch.zeros(2, 8)}}
"""
NAN = "def metric(outputs, references):\n    return float('nan')\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a factory of 4 outputs, and labelled data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK.format(outputs=4))
    (tmp_path / "metric.py").write_text(NAN)
    x = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", input=x, y=np.arange(40) % 4)
    labels = np.arange(40) % 4
    labels[7] = 9
    np.savez(tmp_path / "beyond.npz", input=x, y=labels)
    return tmp_path


def refusal(**fields: Any) -> str:
    data = fields.pop("data", "data.npz")
    with pytest.raises(UsageError) as caught:
        make_plan(Job(calibration_data=data, eval_data=(data,), recipe="w8a8-dynamic", target="phone", **fields))
    return caught.value.message


def test_labels_beyond_the_classes_of_a_factory(place: Path) -> None:
    said = refusal(model="net.py:net", task="image-classification", data="beyond.npz")
    assert said == "The evaluation data has the label 9; the model has 4 classes (0 to 3)."


def test_a_head_that_a_factory_does_not_have(place: Path) -> None:
    said = refusal(model="net.py:net", task="object-detection")
    assert said.startswith("The model is to be judged by detected objects, which takes 'logits' [batch, queries, cl")
    assert said.endswith("; it has logits float32 [1, 4].")


def test_another_head_than_the_recipe_declares(place: Path, save_model: Callable[..., Path]) -> None:
    from onnx import helper  # noqa: PLC0415

    constants = {"sizes": np.array([0, 2, 4])}
    path = save_model([helper.make_node("Reshape", ["x", "sizes"], ["y"])], constants, ["batch", 8])
    (place / "r.toml").write_text('title = "t"\nscheme = "w8a8-dynamic"\n[head]\nkind = "fastestdet"\n')
    with pytest.raises(UsageError) as caught:
        make_plan(
            Job(
                model=str(path), task="object-detection", recipe="r.toml", target="phone",
                calibration_data="data.npz", eval_data=("data.npz",),
            )
        )  # fmt: skip
    assert caught.value.message.startswith("[head] of the recipe says fastestdet, and the outputs are not those of one")


def test_a_metric_without_a_number_of_a_factory(place: Path) -> None:
    said = refusal(model="net.py:net", task="image-classification", metric="metric.py:metric")
    assert said == "The metric 'metric' returned nan, which is not a finite number, on 40 samples of 'data'."


def test_a_metric_without_a_number_of_a_hugging_face_folder(place: Path, tiny_bert: Path) -> None:
    rows = [{"text": f"the {word} can work", "label": place % 2} for place, word in enumerate(["man", "day"] * 10)]
    (place / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = refusal(model=str(tiny_bert), metric="metric.py:metric", data="texts.jsonl")
    assert said == "The metric 'metric' returned nan, which is not a finite number, on 20 samples of 'texts'."


def test_samples_of_mixed_sizes_for_a_fixed_axis(place: Path) -> None:
    (place / "mixed").mkdir()
    for number, length in enumerate((8, 8, 7)):
        np.savez(place / f"mixed/{number}.npz", input=np.zeros(length, np.float32))
    said = refusal(model="net.py:net", task="generic", data="mixed")
    assert said == "mixed, sample 2: 'input' has the shape (1, 7); the model takes [batch, 8]."


def test_what_fits_is_planned(place: Path) -> None:
    job = Job(model="net.py:net", task="image-classification", calibration_data="data.npz", eval_data=("data.npz",))
    assert make_plan(job).stages
