"""The prune pass on a tiny BERT: how many neurons stay, and what the search does with its limits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import HUGGING_FACE

from pipeline.compress.prune import Prune
from pipeline.compress.prune_units import run
from pipeline.core.artifact import Artifact
from pipeline.core.stage import StageContext
from pipeline.core.types import Scheme, silent
from pipeline.source.samples import write_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("samples")
    generator = np.random.default_rng(0)
    rows = (
        {"input_ids": generator.integers(5, 180, (1, 3 + n % 9)), "attention_mask": np.ones((1, 3 + n % 9), np.int64)}
        for n in range(24)
    )
    write_samples(folder, rows)
    return Artifact(folder, "samples", "k", "d", {})


def prune(folder: Path, samples: Artifact, out: Path, limits: dict[str, float], **config: object) -> dict[str, object]:
    source = {
        "path": str(folder),
        "auto_class": "AutoModel",
        "trust_remote_code": False,
        **HUGGING_FACE,
        "family": "embedding",
        "sentence_transformer": True,
    }
    values = {
        "pass": Prune(**config).model_dump(mode="json"),
        "source": source,
        "scheme": Scheme(name="fp32").model_dump(mode="json"),
        "limits": limits,
    }
    out.mkdir(exist_ok=True)
    return run(StageContext(values, {"calibration": samples}, out, silent))


def test_a_given_ratio_is_rounded_to_whole_groups(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    facts = prune(tiny_encoder, samples, tmp_path / "out", {}, ratio=0.3)
    assert (facts["neurons_before"], facts["neurons_after"], facts["ratio"]) == (128, 96, 0.25)
    edits = json.loads((tmp_path / "out/edits.json").read_text())
    assert [len(edit["keep"]) for edit in edits] == [96, 96]
    assert edits[0]["expand"] == ["encoder.layer.0.intermediate.dense"]


def test_auto_takes_all_it_may_and_nothing_it_may_not(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    generous = prune(tiny_encoder, samples, tmp_path / "a", {"max_accuracy_drop": 1000.0}, ratio="auto")
    assert generous["neurons_after"] == 64  # max_ratio is a half
    strict = prune(tiny_encoder, samples, tmp_path / "b", {"max_accuracy_drop": 0.0}, ratio="auto")
    assert strict["neurons_after"] == 128
    assert json.loads((tmp_path / "b/edits.json").read_text()) == []


def test_auto_keeps_within_its_limits(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    free = prune(tiny_encoder, samples, tmp_path / "a", {"max_accuracy_drop": 1000.0}, ratio="auto")
    tried = free["tried"]
    assert isinstance(tried, list)
    limit = tried[0]["drop"] * 0.9  # the largest cut is just not allowed
    facts = prune(tiny_encoder, samples, tmp_path / "b", {"max_accuracy_drop": limit}, ratio="auto", headroom=0.0)
    assert facts["neurons_after"] > tried[0]["neurons"]
    accepted = [one["drop"] for one in facts["tried"] if one["neurons"] == facts["neurons_after"]]
    assert all(drop <= limit for drop in accepted)


def test_headroom_tightens_the_limits(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    limits = {"max_accuracy_drop": 10.0, "min_top10_overlap": 0.6}
    facts = prune(tiny_encoder, samples, tmp_path / "a", limits, ratio="auto", headroom=0.25)
    assert facts["limits"] == pytest.approx({"max_accuracy_drop": 7.5, "min_top10_overlap": 0.7})
