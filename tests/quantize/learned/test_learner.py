"""Learning a small language model: closer to float than rounding to the nearest, the same each time, and resumed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from language_models import save_language_model
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext
from pipeline.core.types import Learning, Scheme, silent
from pipeline.data.samples import write_samples
from pipeline.formats.format import Arrays, Known, Layer
from pipeline.formats.scheme import SchemeFormats
from pipeline.numerics.blocks import unpack_codes
from pipeline.quantize.learned.decoder import Decoder
from pipeline.quantize.learned.learner import Learner
from pipeline.quantize.learned.run import text_windows
from pipeline.quantize.learned.training import divergence, train
from pipeline.quantize.learned.weights import ModelWeights
from pipeline.quantize.quantize import read_learned

VOCABULARY, TOKENS = 60, 16
LEARNING = Learning(window=TOKENS, batch=8, epochs=4, rate=0.03, scale_rate=0.003, tuning_steps=4)
SCHEME = Scheme(name="t", weights=2, embeddings=2, block_size=64, rounding="learned", symmetric=False, accuracy_level=4)
NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """With a tied table."""
    folder = save_language_model(tmp_path_factory.mktemp("llama"), "llama", VOCABULARY)
    return AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)


def layers_of(model: nn.Module) -> list[Layer]:
    """As the traced graph has them, queries, keys and values joined."""
    weights = {
        f"{name}.weight": module.weight for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    for block in ("model.layers.0", "model.layers.1"):
        joined = [weights.pop(f"{block}.self_attn.{part}.weight") for part in NAMES[:3]]
        weights[f"{block}.self_attn.qkv_proj.weight"] = torch.cat(joined)
    products = [_layer("linear", "MatMul", name, weight.T) for name, weight in weights.items()]
    return [_layer("table", "Gather", "table", model.get_parameter("model.embed_tokens.weight")), *products]


def _layer(op: str, kind: str, name: str, weight: Tensor) -> Layer:
    return Layer(op, ir.node(kind, [], name=f"{name}/{kind}"), "x", name, weight.numpy())  # type: ignore[arg-type]


def windows(count: int, seed: int) -> Tensor:
    return torch.randint(4, VOCABULARY, (count, TOKENS), generator=torch.Generator().manual_seed(seed))


def learned(
    model: nn.Module, folder: Path, learning: Learning = LEARNING, progress: Callable[[int, int], None] = silent
) -> tuple[ModelWeights, Learner]:
    weights = ModelWeights(model, layers_of(model), SchemeFormats(SCHEME))
    ids = windows(72, 1)
    decoder = Decoder(model, 2, (ids[: learning.batch], ids[-learning.batch :]))  # type: ignore[arg-type]
    learner = Learner(decoder, weights, ids, VOCABULARY, learning, folder, progress)
    learner.learn()
    return weights, learner


def lost(model: nn.Module, values: dict[str, Tensor]) -> float:
    """Divergence on texts that nobody trained on."""
    ids = windows(8, 2)
    found = functional_call(model, values, (), {"input_ids": ids}, tie_weights=False).logits
    return float(divergence(model(input_ids=ids).logits, found))


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@dataclass(frozen=True)
class Done:
    weights: ModelWeights
    learner: Learner
    folder: Path
    steps: list[tuple[int, int]]


@pytest.fixture(scope="module")
def done(llama: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Done:
    steps: list[tuple[int, int]] = []
    folder = tmp_path_factory.mktemp("learning")
    weights, learner = learned(llama, folder, progress=lambda step, total: steps.append((step, total)))
    return Done(weights, learner, folder, steps)


def test_learned_codes_are_closer_to_float(llama: nn.Module, done: Done) -> None:
    assert done.steps == [(step, 3 * 32 + 4) for step in range(1, 101)]  # ends and two blocks, 8 batches, 4 epochs
    assert list(done.learner.losses) == ["ends", "model.layers.0", "model.layers.1", "tuning"]
    before, after = done.learner.losses["model.layers.0"]
    assert after < 0.7 * before
    weights, nearest = done.weights, rounded_to_nearest(llama)
    gained = lost(llama, weights.decided(weights.learned)) / lost(llama, nearest.decided(nearest.learned))
    assert gained < 0.8, gained
    assert set(weights.decided(weights.learned)) == {
        *weights.learned,
        "model.embed_tokens.weight",
    }  # read from the head


def test_what_was_killed_goes_on_where_it_was(llama: nn.Module, done: Done, tmp_path: Path) -> None:
    shutil.copytree(done.folder, tmp_path / "left")
    for unit in ("model.layers.1", "tuning"):
        (tmp_path / "left" / f"{unit}.safetensors").unlink()
    steps: list[int] = []
    weights, learner = learned(llama, tmp_path / "left", progress=lambda step, _: steps.append(step))
    assert len(steps) == 36
    assert same(weights.arrays(), done.weights.arrays())
    assert learner.losses == done.learner.losses


def rounded_to_nearest(model: nn.Module) -> ModelWeights:
    weights = ModelWeights(model, layers_of(model), SchemeFormats(SCHEME))
    weights.decide(weights.start(weights.learned))
    return weights


def test_what_does_not_help_is_not_taken(llama: nn.Module, tmp_path: Path) -> None:
    wild = Learning(window=TOKENS, batch=12, epochs=1, rate=1.0, scale_rate=1.0)
    weights, learner = learned(llama, tmp_path, wild)
    kept = {unit for unit, (before, after) in learner.losses.items() if not after < before}
    assert kept
    for name, array in rounded_to_nearest(llama).arrays().items():
        if any(name.startswith(unit) for unit in kept):
            np.testing.assert_array_equal(weights.arrays()[name], array)


def test_the_graphs_weights_are_stored_as_they_were_learned(llama: nn.Module, done: Done, tmp_path: Path) -> None:
    save_file(done.weights.arrays(), tmp_path / "learned.safetensors")
    found = read_learned(Artifact(tmp_path, "learn", "", "", {}))
    form = SchemeFormats(SCHEME).classes["linear"]
    for layer in layers_of(llama)[1:]:
        codes, grid = found[layer.weight_name]
        encoded = form.encode("linear", layer.weight, Known(learned=(codes, grid)))
        np.testing.assert_array_equal(unpack_codes(encoded.arrays["codes"], 2), codes)
        np.testing.assert_array_equal(encoded.arrays["scales"], grid.scale)
        np.testing.assert_array_equal(form.decode("linear", encoded, layer.weight.shape).T, expected(done, layer))


def expected(done: Done, layer: Layer) -> NDArray[np.float32]:
    """The rows that stand in the model for a product's weight."""
    block = layer.weight_name.removesuffix("qkv_proj.weight")
    joined = block != layer.weight_name
    names = [f"{block}{part}.weight" for part in NAMES[:3]] if joined else [layer.weight_name]
    return np.concatenate([done.weights.decided([name])[name].numpy() for name in names])


def test_texts_are_cut_into_windows_that_fill_batches(tmp_path: Path) -> None:
    lengths = (5, 9, 3, 8, 8, 8, 7)
    rows = []
    for number, length in enumerate(lengths):
        ids = np.full((1, 10), number, np.int64)
        rows.append({"input_ids": ids, "attention_mask": (np.arange(10)[None] < length).astype(np.int64)})
    write_samples(tmp_path, rows)
    context = StageContext({}, {"samples": Artifact(tmp_path, "s", "", "", {})}, tmp_path, silent)
    found = text_windows(context, Learning(window=8, batch=2), longest=4)
    assert found.shape == (12, 4)
    assert found[:3].tolist() == [[0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]]
    with pytest.raises(StageError) as raised:
        text_windows(context, Learning(window=8, batch=4), longest=100)
    assert raised.value.message == (
        "Learned rounding trains on batches of 4 windows of 8 tokens, and needs two of them; the calibration texts "
        "have 48 tokens."
    )


def test_a_loss_that_is_not_finite_stops_training(llama: nn.Module) -> None:
    weights = ModelWeights(llama, layers_of(llama), SchemeFormats(SCHEME))
    (weight,) = weights.start(weights.learned[:1]).values()
    with pytest.raises(StageError, match=r"Learned rounding: the loss is not a number any more\."):
        train([weight], lambda _: weight.weight().sum() * float("nan"), [torch.arange(2)], (0.1, 0.1), lambda: None)
