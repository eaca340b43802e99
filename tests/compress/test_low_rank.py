"""The low_rank pass: what is factorized, by how much, what stays and why, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_specs import factory
from torch import Tensor, nn

from pipeline.compress import PREVIOUS_PASS
from pipeline.compress.compressed_model import load_compressed, save_compressed
from pipeline.compress.low_rank.config import LowRank
from pipeline.compress.low_rank.run import run
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError, UsageError
from pipeline.core.model_spec import ModelSpec
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import Scheme, silent
from pipeline.data.samples import write_samples

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.point = nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(32, 16)
        self.unused = nn.Linear(16, 16)
        self.logits = nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu_(self.second(torch.relu(self.grouped(torch.relu(self.first(x))))))
        return self.logits(torch.relu(self.head(torch.relu(self.point(x)).mean((2, 3)))))

class Words(nn.Module):
    def __init__(self, tied):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(50, 16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, 50, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, ids, attention_mask):
        return self.head(torch.tanh(self.mix(self.table(ids))))

def net():
    return Net()

def words():
    return Words(False)

def tied():
    return Words(True)
"""


@pytest.fixture(scope="module")
def factories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("factories") / "low_rank_models.py"
    path.write_text(MODELS)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    write_samples(folder, ({"x": generator.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(12)))
    return Artifact(folder, "samples", "k", "d", {})


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("texts")
    generator = np.random.default_rng(0)
    rows = (
        {"ids": generator.integers(1, 50, (1, 3 + n % 5)), "attention_mask": np.ones((1, 3 + n % 5), np.int64)}
        for n in range(12)
    )
    write_samples(folder, rows)
    return Artifact(folder, "samples", "k", "d", {})


class Runs:
    """Runs the pass on a factory's model."""

    def __init__(self, factories: Path, samples: Artifact, out: Path) -> None:
        self.factories, self.samples, self.out = factories, samples, out
        self.inputs = {"calibration": samples}

    def source(self, name: str) -> ModelSpec:
        family = "classifier" if name == "net" else "tokens"
        return factory(f"{self.factories}:{name}", path=self.factories, family=family)

    def __call__(self, name: str, **config: Any) -> dict[str, Any]:
        values = {
            "pass": LowRank(**config).model_dump(mode="json"),
            "scheme": Scheme(name="fp32").model_dump(mode="json"),
            "limits": {},
        }
        self.out.mkdir(exist_ok=True)
        return run(StageContext(values, self.inputs, self.out, silent, models={MODEL: self.source(name)}))

    def result(self, name: str) -> nn.Module:
        return load_compressed(self.source(name), {PREVIOUS_PASS: Artifact(self.out, "compress.0", "k", "d", {})}).model

    def before(self, name: str) -> nn.Module:
        return load_compressed(self.source(name), {}).model


@pytest.fixture
def on_images(factories: Path, images: Artifact, tmp_path: Path) -> Runs:
    return Runs(factories, images, tmp_path / "out")


@pytest.fixture
def on_texts(factories: Path, texts: Artifact, tmp_path: Path) -> Runs:
    return Runs(factories, texts, tmp_path / "out")


def outputs(model: nn.Module, **inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(**inputs)


def test_given_ranks_by_hand(on_images: Runs) -> None:
    facts = on_images("net", rank={"head": 4, "logits": 4, "unused": 2})
    # head is [16, 32]: 4 (16 + 32) = 192 < 512; logits is [4, 16]: 4 (4 + 16) = 80 > 64
    assert facts["layers"] == [{"layer": "head", "method": "svd_llm", "before": 512, "after": 192, "ranks": [4]}]
    assert facts["skipped"] == [
        {"name": "logits", "reason": "at rank 4 it would have 80 weights, not fewer than 64"},
        {
            "name": "unused",
            "reason": "its forward is not called: its weight is read by other code, or nothing reads it",
        },
    ]
    assert facts["parameters_before"] - facts["parameters_after"] == 320
    assert facts["macs_before"] - facts["macs_after"] == 320  # one row a sample
    assert json.loads((on_images.out / "edits.json").read_text()) == [
        {"edit": "factorize_linear", "layer": "head", "rank": 4}
    ]
    model = on_images.result("net")
    assert {name: tuple(value.shape) for name, value in model.head.named_parameters()} == {
        "reduce.weight": (4, 32),
        "expand.weight": (16, 4),
        "expand.bias": (16,),
    }
    assert torch.linalg.matrix_rank(model.head.weight) == 4
    assert torch.equal(model.head.expand.bias, on_images.before("net").head.bias)


def test_what_was_of_low_rank_already_stays_exact(on_images: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_images.before("net")
    with torch.no_grad():
        thin = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)) @ model.head.weight[:4]
        model.head.weight.copy_(thin)
        point = model.point.weight
        point[:, 8:] = 0  # 8 of 32 channels are read
        second = model.second.weight
        second[8:] = second[:8].repeat(3, 1, 1, 1)  # 8 of 32 outputs differ
    monkeypatch.setattr("pipeline.compress.compressed_model.load_source", lambda _: model)
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = outputs(model, x=x)
    facts = on_images("net", method=["svd_llm", "tucker2"], rank={"head": 4, "point": [32, 8], "second": [8, 16]})
    assert [layer["ranks"] for layer in facts["layers"]] == [[8, 16], [32, 8], [4]]
    monkeypatch.undo()
    torch.testing.assert_close(outputs(on_images.result("net"), x=x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["svd", "asvd", "svd_llm"])
def test_a_higher_rank_is_nearer(on_texts: Runs, method: str) -> None:
    # 12 (50 + 16) = 792 < 800 still saves, 13 would not
    found = [on_texts("words", method=method, rank={"head": rank}) for rank in (4, 12)]
    assert [facts["layers"][0]["after"] for facts in found] == [264, 792]
    near = [facts["metric_after"]["scores"]["kl_divergence"] for facts in found]
    assert near[1] < near[0] / 2


def test_a_ratio_divides_over_layers_by_what_they_do_to_the_outputs(on_texts: Runs) -> None:
    wanted = {"layers": ["linear", "embedding"], "ratio": 0.4, "round_to": 1}
    even = on_texts("words", method="svd", allocation="uniform", **wanted)
    # 0.6 of 256 / 32, of 800 / 66
    assert [layer["ranks"] for layer in even["layers"]] == [[7], [4], [7]]
    divided = on_texts("words", **wanted)
    assert divided["allocation"] == "sensitivity"
    assert divided["parameters_after"] <= divided["parameters_before"] - round(0.4 * 1856)
    kl = [facts["metric_after"]["scores"]["kl_divergence"] for facts in (even, divided)]
    assert kl[1] < kl[0]


def test_embeddings_become_a_table_and_a_product(on_texts: Runs) -> None:
    facts = on_texts("words", layers="embedding", ratio=0.3)
    assert facts["layers"] == [{"layer": "table", "method": "svd", "before": 800, "after": 528, "ranks": [8]}]
    model = on_texts.result("words")
    assert [type(part) for part in model.table] == [nn.Embedding, nn.Linear]
    ids = torch.tensor([[1, 4, 9]])
    torch.testing.assert_close(model.table(ids), model.table.weight[ids])


def test_a_shared_table_stays_and_says_why(on_texts: Runs) -> None:
    facts = on_texts("tied", layers=["linear", "embedding"], ratio=0.2, round_to=1)
    assert [layer["layer"] for layer in facts["layers"]] == ["mix"]
    assert facts["skipped"] == [
        {"name": "head", "reason": "its weight is shared with table"},
        {"name": "table", "reason": "its weight is shared with head"},
    ]


@pytest.mark.parametrize("method", ["tucker2", "tucker2_whitened"])
@pytest.mark.parametrize("target", [{"target_params": 0.6}, {"target_macs": 0.5}, {"energy": 0.8}])
def test_convolutions_meet_the_target_and_grouped_ones_stay(
    on_images: Runs, method: str, target: dict[str, float]
) -> None:
    facts = on_images("net", method=method, round_to=2, **target)
    axis = "macs" if "target_macs" in target else "parameters"
    if "energy" not in target:
        share = facts[f"{axis}_after"] / facts[f"{axis}_before"]
        assert next(iter(target.values())) - 0.05 < share <= next(iter(target.values()))
    assert all(layer["after"] < layer["before"] for layer in facts["layers"])
    assert {"name": "grouped", "reason": REASON_GROUPED} in facts["skipped"]
    x = torch.randn(2, 3, 8, 8)
    assert outputs(on_images.result("net"), x=x).shape == (2, 4)


REASON_GROUPED = "a convolution in 4 groups, whose channels are mixed too little to be factorized"


def test_cp_gives_four_thin_convolutions(on_images: Runs) -> None:
    facts = on_images("net", method="cp", rank={"second": 8, "point": 8}, tolerance=1e-3)
    # 8 (32 + 16 + 3 + 3)
    assert facts["layers"] == [{"layer": "second", "method": "cp", "before": 4608, "after": 432, "ranks": [8]}]
    assert facts["skipped"] == [
        {"name": "point", "reason": "its kernel is 1 x 1, which CP cannot split further; tucker2 would take its SVD"}
    ]
    # 8x8 read, 4x8 between, 4x4 given: 8 (16 64 + 3 32 + 3 16 + 32 16)
    assert facts["macs_before"] - facts["macs_after"] == 4608 * 16 - 8 * (16 * 64 + 3 * 32 + 3 * 16 + 32 * 16)
    parts = on_images.result("net").second
    x = torch.randn(2, 16, 8, 8)
    expected = nn.functional.conv2d(x, parts.weight, parts[-1].bias, stride=2, padding=1)
    torch.testing.assert_close(parts(x), expected, atol=1e-5, rtol=1e-4)


def test_a_cp_that_does_not_converge_says_what_to_do(on_images: Runs) -> None:
    with pytest.raises(StageError) as caught:
        on_images("net", method="cp", rank={"second": 8}, iterations=5, tolerance=1e-9)
    assert "the CP decomposition of 'second' at rank 8 did not converge: after 5 iterations" in caught.value.message
    assert caught.value.remedy == (
        'Raise iterations or tolerance, change the rank, name the layer in ignore, or use method = "tucker2".'
    )


def test_a_pass_goes_on_after_another(on_images: Runs, tmp_path: Path) -> None:
    on_images("net", rank={"head": 4})
    on_images.inputs[PREVIOUS_PASS] = Artifact(on_images.out, "compress.0", "k", "d", {})
    on_images.out = tmp_path / "second"
    facts = on_images("net", method="tucker2", rank={"second": [8, 16]})
    assert facts["parameters_before"] - facts["parameters_after"] == 4608 - (8 * 16 * 9 + 32 * 8)
    assert isinstance(on_images.result("net").head, nn.Sequential)


def test_layers_that_were_made_sparse_stay(on_images: Runs, tmp_path: Path) -> None:
    model = on_images.before("net")
    with torch.no_grad():
        model.head.weight[0, 0] = 0
    on_images.out.mkdir()
    edit = {"edit": "hold_zeros", "weights": ["head.weight"]}
    save_compressed(on_images.out, model, [edit], trained=True)
    on_images.inputs[PREVIOUS_PASS] = Artifact(on_images.out, "compress.0", "k", "d", {})
    on_images.out = tmp_path / "second"
    with pytest.raises(StageError, match=r"head: an earlier pass made it sparse, and its factors would be dense"):
        on_images("net", rank={"head": 4})


def test_frozen_layers_and_changes_in_place_have_gradients_too(on_images: Runs, monkeypatch: Any) -> None:
    model = on_images.before("net").requires_grad_(False)
    monkeypatch.setattr("pipeline.compress.compressed_model.load_source", lambda _: model)
    frozen = on_images("net", method=["svd_llm", "tucker2"], ratio=0.4, round_to=2)
    monkeypatch.undo()
    assert frozen["layers"] == on_images("net", method=["svd_llm", "tucker2"], ratio=0.4, round_to=2)["layers"]


def test_patterns_that_match_nothing_name_near_ones(on_images: Runs) -> None:
    with pytest.raises(StageError) as caught:
        on_images("net", layers=["heads*"], ratio=0.5)
    assert caught.value.message == "low_rank: 'heads*' in layers matches no Linear, convolution or Embedding."
    assert caught.value.remedy.startswith("Names near it: head, ")
    with pytest.raises(StageError, match=r"'\*.none' in ignore matches no"):
        on_images("net", ignore=["*.none"], ratio=0.5)
    with pytest.raises(StageError, match=r"'secnd' in rank matches no(.|\n)*Names near it: second"):
        on_images("net", rank={"secnd": 3})


def test_what_cannot_be_done_is_said(on_images: Runs) -> None:
    with pytest.raises(StageError, match=r"low_rank: target_params = 0.01 cannot be reached: the 1 layers that can be"):
        on_images("net", target_params=0.01)
    with pytest.raises(StageError) as caught:
        on_images("net", layers=["grouped", "point"], ratio=0.5)
    assert caught.value.message == (
        "low_rank: none of 2 layers can be factorized. grouped: method svd_llm is not for conv layers; "
        "point: method svd_llm is not for conv layers."
    )
    with pytest.raises(StageError, match=r"low_rank: Net has no embedding layers."):
        on_images("net", layers="embedding", ratio=0.5)
    with pytest.raises(StageError, match=r"rank gives 'head' \[4, 4\], but svd_llm has one rank"):
        on_images("net", rank={"head": (4, 4)})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ratio": 0}, "ratio: Input should be greater than 0"),
        ({"ratio": 1}, "ratio: Input should be less than 1"),
        ({}, "give exactly one of ratio, energy, target_params, target_macs, rank; given: none"),
        ({"ratio": 0.5, "energy": 0.9}, "target_macs, rank; given: ratio, energy"),
        ({"method": "svd_lm", "ratio": 0.5}, "unknown method 'svd_lm'. Did you mean 'svd_llm'"),
        ({"method": ["svd", "asvd"], "ratio": 0.5}, "one method for each kind of layer; svd and asvd are for the same"),
        ({"layers": "conv", "ratio": 0.5}, "layers has 'conv', but no method for it: add tucker2 or tuck"),
        ({"method": "cp", "energy": 0.9}, "energy needs the loss of every rank, which CP has only after a fit"),
        ({"method": "cp", "ratio": 0.5, "allocation": "sensitivity"}, 'allocation = "sensitivity" needs the loss'),
        ({"energy": 0.9, "allocation": "uniform"}, "allocation divides a ratio or target over layers; energy already"),
        ({"rank": 0}, "rank"),
    ],
)
def test_config_mistakes_are_found_at_planning(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        LowRank.from_data(config, "pass 1")
    assert message in str(caught.value)
