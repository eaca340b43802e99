"""The prune pass on a tiny BERT: what stays, what the search does with its limits, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_specs import hugging_face
from torch import nn

from pipeline.compress.prune.config import Prune
from pipeline.compress.prune.run import run
from pipeline.compress.prune.units_ffn import feed_forwards
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError, UsageError
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import Scheme, silent
from pipeline.data.samples import write_samples


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


def prune(
    folder: Path,
    samples: Artifact,
    out: Path,
    limits: dict[str, float],
    earlier: dict[str, Artifact] | None = None,
    **config: object,
) -> dict[str, Any]:
    values = {
        "pass": Prune(**config).model_dump(mode="json"),
        "scheme": Scheme(name="fp32").model_dump(mode="json"),
        "limits": limits,
    }
    out.mkdir(exist_ok=True)
    inputs = {"calibration": samples, **(earlier or {})}
    return run(StageContext(values, inputs, out, silent, models={MODEL: hugging_face(folder)}))


def test_a_given_ratio_is_rounded_to_whole_groups(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    facts = prune(tiny_encoder, samples, tmp_path / "out", {}, ratio=0.3)
    assert (facts["neurons_before"], facts["neurons_after"], facts["ratio"]) == (256, 192, 0.25)
    edits = json.loads((tmp_path / "out/edits.json").read_text())
    assert [len(edit["keep"]) for edit in edits] == [96, 96]
    assert edits[0]["expand"] == ["encoder.layer.0.intermediate.dense"]


def test_auto_takes_all_it_may_and_nothing_it_may_not(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    generous = prune(tiny_encoder, samples, tmp_path / "a", {"max_accuracy_drop": 1000.0}, ratio="auto")
    assert generous["neurons_after"] == 2 * 64  # max_ratio is a half
    strict = prune(tiny_encoder, samples, tmp_path / "b", {"max_accuracy_drop": 0.0}, ratio="auto")
    assert strict["neurons_after"] == 2 * 128
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


def test_facts_say_what_changed_and_what_it_cost(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    facts = prune(tiny_encoder, samples, tmp_path / "out", {}, ratio=0.5)
    blocks = 2 * 64 * (32 + 1 + 32)  # of 2 layers, 64 neurons go, each with a row, a bias and a column of 32
    assert facts["parameters_before"] - facts["parameters_after"] == blocks
    assert facts["config"] == {"intermediate_size": 64}
    assert facts["layers"] == [
        {"layer": "encoder.layer.0", "before": 128, "after": 64},
        {"layer": "encoder.layer.1", "before": 128, "after": 64},
    ]
    assert facts["metric_before"]["drop"] == pytest.approx(0, abs=1e-4)  # nothing is rounded at fp32
    assert facts["metric_after"]["drop"] > 0


def test_heads_by_taylor(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    facts = prune(tiny_encoder, samples, tmp_path / "out", {}, ratio=0.5, unit="heads", importance="taylor")
    assert (facts["heads_before"], facts["heads_after"], facts["config"]) == (4, 2, {})
    edits = json.loads((tmp_path / "out/edits.json").read_text())
    assert [edit["attention"] for edit in edits] == [f"encoder.layer.{n}.attention.self" for n in (0, 1)]
    again = prune(tiny_encoder, samples, tmp_path / "again", {}, ratio=0.5, unit="heads", importance="taylor")
    assert again == facts
    assert (tmp_path / "again/edits.json").read_bytes() == (tmp_path / "out/edits.json").read_bytes()


def test_auto_searches_heads_too(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    facts = prune(tiny_encoder, samples, tmp_path / "a", {"max_accuracy_drop": 1000.0}, ratio="auto", unit="heads")
    assert facts["heads_after"] == 2
    assert [tried["label"] for tried in facts["tried"]] == ["2 heads"]


def test_passes_in_a_row_are_judged_against_the_original(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    first = prune(tiny_encoder, samples, tmp_path / "a", {}, ratio=0.5, unit="heads")
    earlier = Artifact(tmp_path / "a", "compress.0.prune", "k", "d", {})
    second = prune(tiny_encoder, samples, tmp_path / "b", {}, {"compressed": earlier}, ratio=0.25)
    third = prune(
        tiny_encoder,
        samples,
        tmp_path / "c",
        {},
        {"compressed": Artifact(tmp_path / "b", "compress.1.prune", "k", "d", {})},
        ratio=0.34,
    )
    assert second["metric_before"] == first["metric_after"]
    assert third["metric_before"] == second["metric_after"]
    assert (third["neurons_before"], third["neurons_after"]) == (192, 128)
    edits = json.loads((tmp_path / "c/edits.json").read_text())
    assert [edit["edit"] for edit in edits] == ["keep_heads"] * 2 + ["keep_neurons"] * 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"ratio": 0.99},
            "prune: a ratio of 0.99 of 128 neurons, rounded to multiples of 32, would empty every feed-forward block.",
        ),
        (
            {"ratio": 0.9, "unit": "heads"},
            "prune: a ratio of 0.9 of 2 heads, rounded to multiples of 1, would empty every attention layer.",
        ),
        (
            {"ratio": 0.05},
            "prune: a ratio of 0.05 of 128 neurons, rounded to multiples of 32, would remove nothing.",
        ),
        (
            {"ratio": "auto", "round_to": 300},
            "prune: a ratio of 0.5 of 128 neurons, rounded to multiples of 300, would empty every feed-forward block.",
        ),
    ],
)
def test_ratios_that_do_not_fit_the_model(
    tiny_encoder: Path, samples: Artifact, tmp_path: Path, config: dict[str, object], message: str
) -> None:
    with pytest.raises(StageError) as caught:
        prune(tiny_encoder, samples, tmp_path / "out", {}, **config)
    assert caught.value.message == message
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"ratio": 0}, "ratio: must be a number above 0 and below 1, or 'auto' (given: 0)"),
        ({"ratio": 1}, "ratio: must be a number above 0 and below 1, or 'auto' (given: 1)"),
        ({"ratio": 1.5}, "ratio: must be a number above 0 and below 1, or 'auto' (given: 1.5)"),
        ({"ratio": True}, "ratio: must be a number above 0 and below 1, or 'auto' (given: True)"),
        ({"ratio": "most"}, "ratio: must be a number above 0 and below 1, or 'auto' (given: 'most')"),
        ({"ratio": 0.5, "unit": "head"}, "unit: unknown unit 'head'. Did you mean 'heads'? (given: 'head')"),
        (
            {"ratio": 0.5, "importance": "tailor"},
            "importance: unknown importance 'tailor'. Did you mean 'taylor'? (given: 'tailor')",
        ),
    ],
)
def test_mistakes_in_the_config(config: dict[str, object], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        Prune.from_data(config, "pass 1")
    assert caught.value.message == f"pass 1 has 1 mistake:\n  - {line}"


def test_a_config_without_an_ffn_size() -> None:
    with pytest.raises(StageError) as caught:
        feed_forwards(nn.Linear(4, 4))
    assert caught.value.message == "prune: the config of Linear gives no intermediate_size."


def test_a_model_without_feed_forwards() -> None:
    model = nn.Linear(4, 4)
    model.config = type("Config", (), {"intermediate_size": 9})()
    with pytest.raises(StageError) as caught:
        feed_forwards(model)
    assert caught.value.message == "prune: Linear has no feed-forward blocks of two Linear layers."
