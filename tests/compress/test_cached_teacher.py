"""A teacher's recorded outputs: the training that uses them is the one that runs the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_specs import hugging_face
from torch import nn

from pipeline.compress.distill.config import Distill
from pipeline.compress.training.cached_teacher import FILE, CachedTeacher, run
from pipeline.compress.training.data import CACHED, TrainingSet
from pipeline.core.artifact import Artifact
from pipeline.core.digest import pretty_json
from pipeline.core.errors import UsageError
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import silent
from pipeline.data.samples import DATASET, open_samples, write_samples
from pipeline.source.torch_model import load_source, wrap


@pytest.fixture
def texts(tmp_path: Path) -> Artifact:
    """Seventy texts, more than one batch, the longer ones first."""
    folder = tmp_path / "texts"
    folder.mkdir()
    generator = np.random.default_rng(2)
    lengths = [12 - number % 9 for number in range(70)]
    rows = (
        {"input_ids": generator.integers(5, 180, (1, n)), "attention_mask": np.ones((1, n), np.int64)} for n in lengths
    )
    write_samples(folder, rows)
    (folder / DATASET).write_text(pretty_json({"name": "texts", "labels": None, "samples": 70}))
    return Artifact(folder, "samples.training.1", "k", "d", {})


def test_each_row_is_what_the_teacher_says_of_that_sample_alone(
    tiny_encoder: Path, texts: Artifact, tmp_path: Path
) -> None:
    source = hugging_face(tiny_encoder)
    facts = run(StageContext({}, {"training": texts}, tmp_path, silent, models={MODEL: source}))
    rows = np.load(tmp_path / FILE)
    assert facts == {"samples": 70, "width": rows.shape[1]}
    assert rows.dtype == np.float32
    teacher: nn.Module = wrap(load_source(source), source)
    samples = open_samples(texts.path)
    for index in (0, 33, 69):
        with torch.inference_mode():
            alone = teacher(**{name: torch.from_numpy(value.copy()) for name, value in samples[index].items()})
        np.testing.assert_allclose(rows[index], alone["sentence_embedding"][0], atol=1e-6)


def test_a_batch_brings_its_rows(texts: Artifact, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(140, dtype=np.float32).reshape(70, 2))
    data = TrainingSet(texts.path, tmp_path / "rows.npy")
    batch = data.collate([data[5], data[2]])
    assert batch[CACHED].tolist() == [[10, 11], [4, 5]]
    assert CachedTeacher()(batch).outputs.tolist() == [[10, 11], [4, 5]]


@pytest.mark.parametrize(
    ("family", "config", "reason"),
    [
        ("embedding", {"losses": {"similarity": 1.0, "hidden_mse": 1.0}}, "uses hidden_mse, which looks inside"),
        ("embedding", {}, "names no losses, and those for embeddings look inside the teacher"),
        ("classifier", {"augment": "flip_shift"}, "augments images, which the teacher has to see as well"),
        ("tokens", {}, "judges single tokens"),
        ("span", {}, "judges the spans of tokens that answer, which are made of several outputs"),
    ],
)
def test_what_cannot_be_recorded(family: str, config: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        Distill(**config, cache_teacher=True).check(family, "pass 2 of recipe r")
    assert caught.value.message.startswith(f"pass 2 of recipe r has cache_teacher = true, but {reason}")
    assert caught.value.remedy == "Remove cache_teacher, or use losses on outputs and no augmentation."


@pytest.mark.parametrize(
    ("family", "config"), [("classifier", {}), ("embedding", {"losses": {"embedding_cosine": 1.0}})]
)
def test_losses_on_outputs_can_be_recorded(family: str, config: dict[str, Any]) -> None:
    Distill(**config, cache_teacher=True).check(family, "pass 2 of recipe r")
