"""The residual stream: where it is found, what is left of it, and what transformers makes of the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_specs import factory, hugging_face
from stages import run_pass, token_samples
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from pipeline.compress.compressed_model import load_compressed
from pipeline.compress.edits.hidden import Along, KeepHidden
from pipeline.compress.prune.hidden.config import PruneHidden
from pipeline.compress.prune.hidden.narrow import make_edit
from pipeline.compress.prune.hidden.residual import Axis, Residual, find_residual, width_of
from pipeline.compress.prune.hidden.run import kept_count
from pipeline.compress.prune.hidden.scores import activation, l2
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError, UsageError
from pipeline.core.types import silent
from pipeline.data.samples import open_samples, write_samples

_SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}
_IDS = torch.randint(5, 40, (2, 7), generator=torch.Generator().manual_seed(0))


class Stream(nn.Module):
    """x + down(relu(up(x))), then classes; no norm, so that nothing but the weights depends on the width."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(200, width)
        self.up, self.down = nn.Linear(width, 6), nn.Linear(6, width)
        self.classes = nn.Linear(width, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.table(input_ids)
        x = x + self.down(torch.relu(self.up(x)))
        return self.classes(x.mean(1))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(200, 2), nn.LayerNorm(2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # noqa: ARG002
        return self.norm(self.table(input_ids))


_AXES = (
    Axis("table.weight", 1),
    Axis("up.weight", 1),
    Axis("down.weight", 0),
    Axis("down.bias", 0),
    Axis("classes.weight", 1),
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return token_samples(tmp_path_factory.mktemp("samples"), tokens=40)


def scoring(model: nn.Module, samples: Artifact) -> CalibrationData:
    return CalibrationData(model, factory(family="embedding"), open_samples(samples.path), 0, silent)


def of(model: nn.Module, **inputs: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        output = model(**inputs)
        return output if isinstance(output, Tensor) else next(iter(output.values()))

    return run


def settled(model: nn.Module) -> nn.Module:
    """Away from the start, at which gains are 1 and biases 0, which hides mistakes."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def test_the_stream_by_hand() -> None:
    model = Stream()
    residual = find_residual(model, 4, of(model, input_ids=_IDS))
    assert set(residual.axes) == set(_AXES)
    assert (residual.norms, residual.width, residual.outputs) == ((), 4, False)


def test_l2_by_hand(samples: Artifact) -> None:
    """A feature has 200 values in the table, 6 in `up`, 6 and a bias in `down`, 3 in `classes`: 216 of a constant c
    each, so that its norm is c * sqrt(216)."""
    model = Stream()
    scale = torch.tensor([2.0, 1.0, 4.0, 3.0])
    for name, axis in _AXES:
        parameter = model.get_parameter(name)
        parameter.data = scale.view([-1 if place == axis else 1 for place in range(parameter.dim())]).expand(
            parameter.shape
        )
    scores = l2(scoring(model, samples), Residual(_AXES, (), 4, False))
    assert torch.allclose(scores, scale.double() * 216**0.5)


def test_activation_by_hand(samples: Artifact) -> None:
    """A norm that gives its gain times (-1, 1) for every token of two features: the root mean square is the gain."""
    model = Normed()
    model.table.weight.data = torch.tensor([-1.0, 1.0]).expand(200, 2) * 50
    model.norm.weight.data = torch.tensor([0.5, 3.0])
    scores = activation(scoring(model, samples), Residual((), ("norm",), 2, True))
    assert scores.tolist() == pytest.approx([0.5, 3.0], abs=1e-4)
    with pytest.raises(StageError, match="has no norms whose outputs could be measured"):
        activation(scoring(Stream(), samples), Residual(_AXES, (), 4, False))


def test_features_that_are_zero_can_go() -> None:
    model = Stream().eval()
    for name, axis in _AXES:
        model.get_parameter(name).data.index_fill_(axis, torch.tensor([1, 3]), 0)
    before = model(_IDS)
    KeepHidden(along=tuple(Along(parameter=name, axis=axis) for name, axis in _AXES), keep=(0, 2)).apply(model)
    assert (model.table.embedding_dim, model.up.in_features, model.down.out_features) == (2, 2, 2)
    assert torch.allclose(model(_IDS), before, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "config", "norms", "told"),
    [
        (BertForSequenceClassification, BertConfig(**_SMALL), 5, False),
        # as many neurons as hidden features
        (BertForSequenceClassification, BertConfig(**{**_SMALL, "intermediate_size": 16}), 5, False),
        (DistilBertForSequenceClassification, DistilBertConfig(dim=16, hidden_dim=24, n_heads=2, n_layers=2), 5, False),
        (RobertaForSequenceClassification, RobertaConfig(**_SMALL), 5, False),
        (LlamaForCausalLM, LlamaConfig(**_SMALL, vocab_size=50, num_key_value_heads=1), 5, True),
        (
            LlamaForCausalLM,
            LlamaConfig(**_SMALL, vocab_size=50, num_key_value_heads=1, tie_word_embeddings=True),
            5,
            True,
        ),
        # norms after attention and feed-forward, and a scale that follows from the width, which the config would change
        (Gemma2ForCausalLM, Gemma2Config(**_SMALL, vocab_size=50, num_key_value_heads=1, head_dim=8), 9, False),
    ],
)
def test_streams_of_transformers(build: Any, config: Any, norms: int, told: bool, samples: Artifact) -> None:
    """Every axis is found: what is left runs, and transformers loads it if the config can say so."""
    model = settled(build(config))
    residual = find_residual(model, width_of(model), of(model, input_ids=_IDS))
    assert (len(residual.norms), residual.outputs) == (norms, False)
    keep = tuple(range(0, 16, 2))
    edit = make_edit(model, residual, keep, scoring(model, samples))
    assert bool(edit["config"]) == told
    KeepHidden.model_validate(edit).apply(model)
    assert model(input_ids=_IDS)[0].isfinite().all()
    if told:
        assert model.config.hidden_size == 8
        build(model.config).load_state_dict(model.state_dict())


def test_streams_of_images(tmp_path: Path) -> None:
    """Patches, positions and the class token write to it."""
    model = settled(ViTForImageClassification(ViTConfig(**_SMALL, image_size=8, patch_size=4)))
    generator = torch.Generator().manual_seed(0)
    rows = ({"pixel_values": torch.randn(1, 3, 8, 8, generator=generator).numpy()} for _ in range(16))
    write_samples(tmp_path, rows)
    data = CalibrationData(model, factory(family="embedding"), open_samples(tmp_path), 0, silent)
    images = torch.randn(2, 3, 8, 8, generator=generator)
    residual = find_residual(model, 16, of(model, pixel_values=images))
    assert {Axis("vit.embeddings.cls_token", 2), Axis("classifier.weight", 1)} <= set(residual.axes)
    edit = make_edit(model, residual, tuple(range(8)), data)
    KeepHidden.model_validate(edit).apply(model)
    assert model(pixel_values=images).logits.isfinite().all()


def test_an_encoder_gives_fewer_values_only_when_asked(tiny_encoder: Path, samples: Artifact, tmp_path: Path) -> None:
    source, inputs = hugging_face(tiny_encoder), {"calibration": samples}
    table = {"pass": "prune", "unit": "hidden", "ratio": 0.5, "round_to": 8}
    with pytest.raises(StageError) as caught:
        run_pass(table, source, inputs, tmp_path / "no")
    assert caught.value.message == (
        "prune: the residual stream is the model's output too: it would have 16 values instead of 32, which cannot be "
        "compared with those that the model gave before."
    )
    facts, inputs = run_pass({**table, "change_output": True}, source, inputs, tmp_path / "yes")
    assert (facts["hidden_before"], facts["hidden_after"], facts["config"]) == (32, 16, {})
    assert set(facts["metric_after"]["scores"]) == {"pair_rank_correlation", "top10_overlap"}
    model = load_compressed(source, inputs).model
    assert model(input_ids=_IDS).last_hidden_state.shape == (2, 7, 16)


def test_architectures_that_cannot_be_followed() -> None:
    model = settled(GPT2LMHeadModel(GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=50)))
    with pytest.raises(StageError) as caught:
        find_residual(model, 16, of(model, input_ids=_IDS))
    assert caught.value.message == (
        "prune: the residual stream of GPT2LMHeadModel cannot be followed: what 'transformer.h.0.ln_2' reads is "
        "neither it nor free of it."
    )
    with pytest.raises(StageError, match="cannot be followed: no embedding writes to it"):
        find_residual(nn.Linear(4, 4), 4, lambda: torch.zeros(1))
    with pytest.raises(StageError, match="nothing says how wide the residual stream of ReLU is"):
        width_of(nn.ReLU())


@pytest.mark.parametrize(("ratio", "left"), [(0.9, 0), (0.01, 64)])
def test_ratios_that_do_not_fit_the_model(ratio: float, left: int) -> None:
    with pytest.raises(StageError) as caught:
        kept_count(PruneHidden(ratio=ratio), Residual((), (), 64, False))
    assert caught.value.message == (
        f"prune: a ratio of {ratio} of 64 hidden features, rounded to multiples of 32, would leave {left}."
    )


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({}, "ratio: is missing"),
        ({"ratio": 0}, "ratio: Input should be greater than 0 (given: 0)"),
        (
            {"ratio": 0.5, "importance": "l1"},
            "importance: unknown importance of hidden features 'l1'. Allowed: activation, l2, random. (given: 'l1')",
        ),
    ],
)
def test_mistakes_in_the_config(config: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        PruneHidden.from_data(config, "pass 1")
    assert caught.value.message == f"pass 1 has 1 mistake:\n  - {line}"


@pytest.mark.parametrize(
    ("along", "keep", "message"),
    [
        (("none", 0), (0,), "The edits name the parameter 'none', which the model does not have."),
        (("up.weight", 1), (0, 4), "The edit of 'up.weight' keeps 2 features that do not fit its 4."),
        (("up.weight", 2), (0,), "The edit of 'up.weight' keeps 1 features that do not fit its 0."),
    ],
)
def test_edits_that_do_not_fit_the_model(along: tuple[str, int], keep: tuple[int, ...], message: str) -> None:
    with pytest.raises(StageError) as caught:
        KeepHidden(along=(Along(parameter=along[0], axis=along[1]),), keep=keep).apply(Stream())
    assert caught.value.message == message
