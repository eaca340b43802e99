"""Whole blocks: which stacks there are, which blocks stay, and what transformers makes of the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_specs import factory, hugging_face
from stages import run_pass, token_samples
from torch import Tensor, nn
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3Model,
    ViTConfig,
    ViTModel,
)

from pipeline.compress.compressed_model import load_compressed
from pipeline.compress.edits import replay
from pipeline.compress.edits.layers import KeepLayers
from pipeline.compress.edits.renumber import renumber_edits
from pipeline.compress.prune.layers.config import PruneLayers
from pipeline.compress.prune.layers.run import choose, kept_counts, make_edits
from pipeline.compress.prune.layers.scores import block_influence, even
from pipeline.compress.prune.layers.stacks import Stack, find_stacks
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError, UsageError
from pipeline.core.types import silent
from pipeline.data.samples import open_samples

_SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 4}
_IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])


class Turn(nn.Module):
    """Adds to (a, b) `share` of the vector (-b, a), at a right angle to it: the cosine is 1 / sqrt(1 + share^2)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2, bias=False)
        self.inner.weight.data = share * torch.tensor([[0.0, -1.0], [1.0, 0.0]])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Turns(nn.Module):
    def __init__(self, *shares: float) -> None:
        super().__init__()
        self.table = nn.Embedding(200, 2)
        self.blocks = nn.Sequential(*map(Turn, shares))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # noqa: ARG002
        return self.blocks(self.table(input_ids))


class Stages(nn.Module):
    """Two stages as a ResNet has: the first block of the second one doubles the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(*(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU()) for _ in range(3)))
        self.two = nn.Sequential(*(nn.Sequential(nn.Conv2d(c, 4, 1), nn.ReLU()) for c in (2, 4, 4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return token_samples(tmp_path_factory.mktemp("samples"))


def scoring(model: nn.Module, samples: Artifact) -> CalibrationData:
    return CalibrationData(model, factory(family="embedding"), open_samples(samples.path), 0, silent)


def stacks_in(model: nn.Module, pattern: str = "*", **inputs: Tensor) -> list[Stack]:
    with torch.inference_mode():
        return find_stacks(model, lambda: model(**inputs), pattern)


def test_block_influence_by_hand(samples: Artifact) -> None:
    """1 - cos: a share of 0 turns nothing, 3/4 has cos = 1 / 1.25 = 0.8, 4/3 has cos = 1 / (5/3) = 0.6."""
    (scores,) = block_influence(scoring(Turns(4 / 3, 0, 3 / 4), samples), [Stack("blocks", 3)], [2])
    assert scores.tolist() == pytest.approx([0.4, 0.0, 0.2], abs=1e-6)
    assert choose([Stack("blocks", 3)], [2], [scores]) == [(0, 2)]


def test_padding_does_not_count() -> None:
    from pipeline.compress.prune.layers.scores import _cosines  # noqa: PLC0415

    x = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    y = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert _cosines(x, y, torch.tensor([[True, False]])).tolist() == [1.0]
    assert _cosines(x, y, torch.empty(0).bool()).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("kept", "expected"), [(1, [0]), (2, [0, 5]), (3, [0, 2, 5]), (4, [0, 2, 3, 5])])
def test_even_blocks(kept: int, expected: list[int]) -> None:
    (scores,) = even(None, [Stack("s", 6)], [kept])  # type: ignore[arg-type]  # it looks at no data
    assert scores.nonzero().flatten().tolist() == expected


def test_a_block_that_does_nothing_can_go(samples: Artifact) -> None:
    model = Turns(1 / 2, 0, 1 / 3)
    before = model(_IDS, _IDS)
    KeepLayers(stack="blocks", keep=(0, 2)).apply(model)
    assert torch.equal(model(_IDS, _IDS), before)


@pytest.mark.parametrize(
    ("config", "build", "stack"),
    [
        (BertConfig(**_SMALL), BertModel, "encoder.layer"),
        (DistilBertConfig(dim=16, hidden_dim=24, n_heads=2, n_layers=4), DistilBertModel, "transformer.layer"),
        (LlamaConfig(**_SMALL, vocab_size=50), LlamaForCausalLM, "model.layers"),
        (
            Qwen3Config(**_SMALL, vocab_size=50, num_key_value_heads=1, head_dim=8, layer_types=["full_attention"] * 4),
            Qwen3Model,
            "layers",
        ),
    ],
)
def test_transformers_can_load_what_is_left(config: Any, build: Any, stack: str, tmp_path: Path) -> None:
    """The config says so, layer indices are those of a model built small, and a cache works."""
    model = build(config).eval()
    found = stacks_in(model, input_ids=_IDS)
    assert found == [Stack(stack, 4)]
    replay(model, make_edits(model, found, [(0, 3)]))
    assert model.config.num_hidden_layers == 2
    assert len(getattr(model.config, "layer_types", None) or [0, 0]) == 2
    model.save_pretrained(tmp_path)
    again = build.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        assert torch.equal(model(input_ids=_IDS)[0], again(input_ids=_IDS)[0])
    places = [[getattr(module, "layer_idx", None) for module in one.modules()] for one in (model, again)]
    assert places[0] == places[1]


def test_images_too() -> None:
    model = ViTModel(ViTConfig(**_SMALL, image_size=8, patch_size=4)).eval()
    found = stacks_in(model, pixel_values=torch.zeros(2, 3, 8, 8))
    assert [(stack.count, stack.fixed) for stack in found] == [(4, ())]


def test_blocks_that_change_the_shape_stay() -> None:
    model = Stages()
    found = stacks_in(model, x=torch.zeros(1, 2, 3, 3))
    assert found == [Stack("one", 3), Stack("two", 3, (0,))]
    assert stacks_in(model, "two", x=torch.zeros(1, 2, 3, 3)) == [Stack("two", 3, (0,))]
    scores = [torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 3.0])]
    assert choose(found, [2, 2], scores) == [(0, 1), (0, 2)]
    edits = make_edits(model, found, [(0, 1), (0, 2)])
    assert [(edit["stack"], edit["config"]) for edit in edits] == [("one", []), ("two", [])]
    assert replay(model, edits)(torch.zeros(1, 2, 3, 3)).shape == (1, 4, 3, 3)


def test_the_pass_on_an_encoder(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    source, inputs = hugging_face(tiny_encoder), {"calibration": samples}
    facts, _ = run_pass({"pass": "prune", "unit": "layers", "ratio": 0.5}, source, inputs, tmp_path / "out")
    assert (facts["layers_before"], facts["layers_after"]) == (2, 1)
    assert facts["config"] == {"num_hidden_layers": 1}
    layer = sum(p.numel() for p in AutoModel.from_pretrained(tiny_encoder).encoder.layer[0].parameters())
    assert facts["parameters_before"] - facts["parameters_after"] == layer
    assert len(facts["layers"][0]["scores"].split()) == 2


def test_earlier_edits_follow_their_blocks(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    """Neurons, then layers, then heads: the config tells all that it can, and the edits replay to the same model."""
    source, inputs = hugging_face(tiny_encoder), {"calibration": samples}
    _, inputs = run_pass({"pass": "prune", "ratio": 0.5}, source, inputs, tmp_path / "1")
    facts, inputs = run_pass({"pass": "prune", "unit": "layers", "keep": [1]}, source, inputs, tmp_path / "2")
    assert facts["config"] == {"intermediate_size": 64, "num_hidden_layers": 1}
    assert facts["layers"] == [{"stack": "encoder.layer", "before": 2, "after": 1, "kept": "1"}]
    facts, inputs = run_pass({"pass": "prune", "ratio": 0.5}, source, inputs, tmp_path / "3")
    assert facts["config"] == {"intermediate_size": 32, "num_hidden_layers": 1}
    smaller = load_compressed(source, inputs).model
    assert smaller.encoder.layer[0].intermediate.dense.out_features == 32
    edits = json.loads((tmp_path / "3/edits.json").read_text())
    assert [edit["contract"] for edit in renumber_edits(edits) if "contract" in edit] == [
        "encoder.layer.0.output.dense"
    ] * 2


def test_what_earlier_edits_say_of_blocks() -> None:
    """Of blocks 0 to 3, 1 and 3 stay, as 0 and 1."""
    earlier = [
        {"edit": "keep_neurons", "expand": ["b.0.up", "b.0.gate"], "contract": "b.0.down", "keep": [1]},
        {"edit": "keep_neurons", "expand": ["b.3.up", "b.3.gate"], "contract": "b.3.down", "keep": [1]},
        {"edit": "hold_zeros", "weights": ["b.0.up.weight", "b.1.up.weight", "head.weight"]},
        {"edit": "keep_channels", "layers": [{"module": "b.2.conv", "keep": []}, {"module": "b.1.conv", "keep": []}]},
    ]
    removal = {"edit": "keep_layers", "stack": "b", "keep": [1, 3], "config": []}
    assert renumber_edits([*earlier, removal]) == [
        {"edit": "keep_neurons", "expand": ["b.1.up", "b.1.gate"], "contract": "b.1.down", "keep": [1]},
        {"edit": "hold_zeros", "weights": ["b.0.up.weight", "head.weight"]},
        {"edit": "keep_channels", "layers": [{"module": "b.0.conv", "keep": []}]},
        removal,
    ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"keep": [0, 6]}, "prune: keep = [0, 6] does not fit 's', whose blocks are 0 to 3."),
        ({"keep": [0, 1, 2, 3]}, "prune: keep = [0, 1, 2, 3] removes nothing from 's'."),
        (
            {"keep": [1, 2]},
            "prune: block 0 of 's' changes the shape of what passes through it and must stay.",
        ),
        ({"ratio": 0.9}, "prune: a ratio of 0.9 of the 4 blocks of 's' would leave 0; 1 must stay."),
        ({"ratio": 0.1}, "prune: a ratio of 0.1 of 4 blocks would remove nothing."),
    ],
)
def test_amounts_that_do_not_fit(config: dict[str, Any], message: str) -> None:
    with pytest.raises(StageError) as caught:
        kept_counts(PruneLayers(**config), [Stack("s", 4, (0,))])
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({}, "give keep = [block, ...] or ratio = share, one of the two"),
        ({"keep": [0], "ratio": 0.5}, "give keep = [block, ...] or ratio = share, one of the two"),
        ({"keep": [2, 0]}, "keep: must ascend, each block once, not [2, 0]"),
        ({"ratio": 1}, "ratio: Input should be less than 1 (given: 1)"),
        (
            {"ratio": 0.5, "importance": "evenly"},
            "importance: unknown importance of layers 'evenly'. Did you mean 'even'? (given: 'evenly')",
        ),
    ],
)
def test_mistakes_in_the_config(config: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        PruneLayers.from_data(config, "pass 1")
    assert caught.value.message == f"pass 1 has 1 mistake:\n  - {line}"


def test_a_model_without_stacks(samples: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.compress.prune.layers.stacks import stacks_of  # noqa: PLC0415

    data = scoring(Turns(0), samples)
    with pytest.raises(StageError) as caught:
        stacks_of(data, "*")
    assert caught.value.message == "prune: Turns has no stack of blocks of one class that each run once."
    with pytest.raises(StageError, match="has no stack called 'layers' of"):
        stacks_of(data, "layers")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (KeepLayers(stack="none", keep=(0,)), "The edits name 'none', which the model does not have."),
        (KeepLayers(stack="table", keep=(0,)), "The edits name 'table' as a stack, but it is a Embedding."),
        (KeepLayers(stack="blocks", keep=(0, 3)), "The edit of 'blocks' keeps blocks that do not fit its 3."),
    ],
)
def test_edits_that_do_not_fit_the_model(edit: KeepLayers, message: str) -> None:
    with pytest.raises(StageError) as caught:
        edit.apply(Turns(0, 0, 0))
    assert caught.value.message == message
