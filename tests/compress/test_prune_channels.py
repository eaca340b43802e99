"""The prune pass on a tiny convolutional network: every way to give an amount, what is reported, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_specs import factory

from pipeline.compress.prune.config import Prune
from pipeline.compress.prune.run import run
from pipeline.compress.shared.cost import macs
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError, UsageError
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import Scheme, silent
from pipeline.data.samples import write_samples
from pipeline.source.factory import build

FACTORY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(torch.relu(self.b(torch.relu(self.norm(self.a(x))))).mean((2, 3)))


def net():
    torch.manual_seed(0)
    return Net()
"""
MACS = 64 * (27 * 16 + 16 * 8) + 8 * 5
"""8 x 8 places, 3 x 3 x 3 products for each channel of `a`, 16 for each of `b`, and the head."""
PARAMETERS = (27 + 1 + 2) * 16 + (16 + 1) * 8 + (8 + 1) * 5


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("factory") / "channel_net.py"
    file.write_text(FACTORY)
    return f"{file}:net"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    write_samples(folder, ({"x": generator.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(16)))
    return Artifact(folder, "samples", "k", "d", {})


def prune(net: str, samples: Artifact, out: Path, earlier: Path | None = None, **config: object) -> dict[str, Any]:
    values = {
        "pass": Prune(unit="channels", **config).model_dump(mode="json"),
        "scheme": Scheme(name="fp32").model_dump(mode="json"),
        "limits": {"max_accuracy_drop": 100.0},
    }
    out.mkdir()
    inputs = {"calibration": samples}
    if earlier:
        inputs["compressed"] = Artifact(earlier, "compress.0.prune", "k", "d", {})
    return run(StageContext(values, inputs, out, silent, models={MODEL: factory(net)}))


def kept(facts: dict[str, Any]) -> dict[str, int]:
    return {layer["layer"]: layer["after"] for layer in facts["layers"]}


def test_macs_worked_out_by_hand(net: str) -> None:
    assert macs(build(net).model, {"x": torch.zeros(1, 3, 8, 8)}) == MACS


def test_facts(net: str, samples: Artifact, tmp_path: Path) -> None:
    facts = prune(net, samples, tmp_path / "a", ratio=0.5, round_to=4)
    assert facts["layers"] == [{"layer": "a", "before": 16, "after": 8}, {"layer": "b", "before": 8, "after": 4}]
    assert facts["skipped"] == [{"name": "head", "size": 5, "reason": "it is an output of the model"}]
    assert (facts["channels_before"], facts["channels_after"], facts["ratio"]) == (24, 12, 0.5)
    assert (facts["macs_before"], facts["macs_after"]) == (MACS, 64 * (27 * 8 + 8 * 4) + 4 * 5)
    assert (facts["parameters_before"], facts["parameters_after"]) == (PARAMETERS, 30 * 8 + 9 * 4 + 5 * 5)
    assert facts["metric_after"]["drop"] >= 0
    (edit,) = json.loads((tmp_path / "a/edits.json").read_text())
    assert [(layer["module"], layer["axis"], len(layer["keep"])) for layer in edit["layers"]] == [
        ("a", "output", 8),
        ("norm", "output", 8),
        ("b", "input", 8),
        ("b", "output", 4),
        ("head", "input", 4),
    ]


@pytest.mark.parametrize("ranking", ["layer", "global"])
@pytest.mark.parametrize("target", ["target_macs", "target_params"])
def test_a_target_is_reached_and_not_overshot(
    net: str, samples: Artifact, tmp_path: Path, target: str, ranking: str
) -> None:
    """One channel of `a` is 440 of 560 MACs a place / 16, so that no more than that is missing to the target."""
    facts = prune(net, samples, tmp_path / "a", round_to=1, ranking=ranking, **{target: 0.5})
    name = "macs" if target == "target_macs" else "parameters"
    share = facts[f"{name}_after"] / facts[f"{name}_before"]
    assert 0.5 - 1 / 12 < share <= 0.5


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ([10, 8], {"a": 10, "b": 8}),
        ([0.5, 4], {"a": 8, "b": 4}),
        ({"?": 0.5}, {"a": 8, "b": 4}),
        ({"b": 3}, {"a": 16, "b": 3}),
        ({"a": 8, "*": 6}, {"a": 8, "b": 6}),
    ],
)
def test_counts_by_layer(net: str, samples: Artifact, tmp_path: Path, keep: object, expected: dict[str, int]) -> None:
    assert kept(prune(net, samples, tmp_path / "a", keep=keep, round_to=4)) == expected


def test_ignored_layers_are_left_alone(net: str, samples: Artifact, tmp_path: Path) -> None:
    facts = prune(net, samples, tmp_path / "a", ratio=0.5, round_to=4, ignore=["b*"])
    assert kept(facts) == {"a": 8}
    assert {"name": "b", "size": 8, "reason": "it is ignored on request"} in facts["skipped"]


@pytest.mark.parametrize(
    "amount", [{"ratio": 0.5}, {"target_macs": 0.5}, {"keep": [8, 4]}, {"ratio": 0.5, "ranking": "global"}]
)
def test_steps_end_where_one_would(net: str, samples: Artifact, tmp_path: Path, amount: dict[str, Any]) -> None:
    facts = prune(net, samples, tmp_path / "a", round_to=2, steps=3, **amount)
    edits = json.loads((tmp_path / "a/edits.json").read_text())
    assert len(edits) == 3
    if "target_macs" in amount:
        assert facts["macs_after"] <= 0.5 * MACS
    elif amount.get("ranking") == "global":
        assert facts["channels_after"] == 12
    else:
        assert kept(facts) == {"a": 8, "b": 4}


def test_passes_in_a_row(net: str, samples: Artifact, tmp_path: Path) -> None:
    prune(net, samples, tmp_path / "a", ratio=0.5, round_to=4)
    facts = prune(net, samples, tmp_path / "b", tmp_path / "a", keep={"a": 4}, importance="taylor")
    assert kept(facts) == {"a": 4, "b": 4}
    assert facts["macs_before"] == 64 * (27 * 8 + 8 * 4) + 4 * 5


@pytest.mark.parametrize("ranking", ["layer", "global"])
def test_auto_takes_all_that_it_may(net: str, samples: Artifact, tmp_path: Path, ranking: str) -> None:
    facts = prune(net, samples, tmp_path / "a", ratio="auto", round_to=2, ranking=ranking)
    assert facts["channels_after"] == 12
    assert facts["tried"][0]["label"] == "12 channels"


@pytest.mark.parametrize(
    ("config", "message", "remedy"),
    [
        (
            {"target_macs": 0.05},
            "prune: target_macs = 0.05 cannot be reached: with 8 left in each layer, 0.501 of the whole still remain.",
            "Raise target_macs, lower round_to, or ignore fewer layers.",
        ),
        (
            {"ratio": 0.9, "ranking": "global"},
            "prune: ratio = 0.9 cannot be reached: with 8 left in each layer, 0.667 of the whole still remain.",
            "Lower ratio, lower round_to, or ignore fewer layers.",
        ),
        (
            {"ratio": 0.6},
            "prune: a ratio of 0.6 of 8 channels, rounded to multiples of 8, would empty every convolution.",
            "Lower ratio or round_to.",
        ),
        (
            {"ratio": 0.5, "ignore": ["norms"]},
            "prune: 'norms' in ignore matches no layer.",
            "Names near it: head, b, a; * stands for anything.",
        ),
        (
            {"ratio": 0.5, "ignore": ["heads"]},
            "prune: 'heads' in ignore matches no layer.",
            "Names near it: head, a, b; * stands for anything.",
        ),
        ({"keep": {"c": 4}}, "prune: 'c' in keep matches no layer.", "Names near it: b, a; * stands for anything."),
        (
            {"keep": [4]},
            "prune: keep lists 1 layers, but 2 have channels that can be removed.",
            "They are, in order: a, b.",
        ),
        ({"keep": [17, 8]}, "prune: keep gives 'a' 17 channels, but it has 16.", "Lower the number."),
        (
            {"keep": {"b": 0.1}},
            "prune: keep gives 'b' 0.1 of its 8 channels, rounded to multiples of 8, which would empty it.",
            "Raise the share or lower round_to.",
        ),
        (
            {"ratio": 0.5, "ignore": ["?"]},
            "prune: no channels of Net can be removed: 'a' must stay, since it is ignored on request.",
            "Ignore fewer layers, use another unit, or remove the prune pass from the recipe.",
        ),
    ],
)
def test_amounts_that_do_not_fit(
    net: str, samples: Artifact, tmp_path: Path, config: dict[str, object], message: str, remedy: str
) -> None:
    with pytest.raises(StageError) as caught:
        prune(net, samples, tmp_path / "a", **config)
    assert (caught.value.message, caught.value.remedy) == (message, remedy)
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({}, "no amount is given: give exactly one of ratio, target_macs, target_params, keep"),
        (
            {"ratio": 0.5, "target_macs": 0.5},
            "ratio and target_macs are given: give exactly one of ratio, target_macs, target_params, keep",
        ),
        ({"ratio": "auto", "steps": 2}, "steps needs a fixed amount: ratio = 'auto' searches in one step"),
        (
            {"keep": [4], "ranking": "global"},
            "keep says how many units stay in each layer: ranking = 'global' has no say in it",
        ),
        ({"target_macs": 1.0}, "target_macs: Input should be less than 1 (given: 1.0)"),
        ({"target_params": 0}, "target_params: Input should be greater than 0 (given: 0)"),
        (
            {"keep": [0, 4]},
            "keep: must be a list of all layers, or a table by name pattern, of numbers of units (1 or more) or shares "
            "(above 0 and below 1)",
        ),
        ({"ratio": 0.5, "steps": 0}, "steps: Input should be greater than 0 (given: 0)"),
    ],
)
def test_mistakes_in_the_config(config: dict[str, object], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        Prune.from_data(config, "pass 1")
    assert caught.value.message == f"pass 1 has 1 mistake:\n  - {line}"
