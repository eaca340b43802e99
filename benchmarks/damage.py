"""Variants of the default model with known damage: weights changed in torch, bundles, a plain quantized file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.minilm import MODEL, artifacts
from benchmarks.peers import plain_dynamic
from pipeline.config.job import Job
from pipeline.config.loading import load_target
from pipeline.config.target import Runtime
from pipeline.core.model_spec import ModelSpec
from pipeline.data.encode import load_tokenizer
from pipeline.plan.build import make_plan
from pipeline.runtime.session import make_session
from pipeline.source.torch_model import load_source, wrap

LENGTH = 128
BATCH = 16
Array = NDArray[np.float32]
Inputs = dict[str, Tensor]
Run = Callable[[Inputs], Array]
"""Inputs int64 [texts, tokens] by name -> embeddings float32 [texts, dimensions]."""


@dataclass(frozen=True)
class Variant:
    """`build` gives the model. Texts run one at a time, or `batch` at a time: `padded` in the order that they have,
    else with their neighbours in length. `workers` of them run beside each other."""

    build: Callable[[], Run]
    batch: int = 1
    padded: bool = False
    workers: int = 2


def embedded(texts: Sequence[str], variant: Variant) -> Array:
    """The variant's embeddings, float32 [texts, dimensions], of texts cut at `LENGTH` tokens."""
    run, tokenizer = variant.build(), load_tokenizer(_source().path)
    order = range(len(texts)) if variant.padded else sorted(range(len(texts)), key=lambda place: len(texts[place]))
    batches = [order[start : start + variant.batch] for start in range(0, len(texts), variant.batch)]

    def of(places: Sequence[int]) -> Inputs:
        chosen = [texts[place] for place in places]
        return dict(tokenizer(chosen, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"))

    with ThreadPoolExecutor(variant.workers) as pool:
        rows = np.concatenate([*pool.map(run, map(of, batches))])
    found = np.empty_like(rows)
    found[list(order)] = rows
    return found


@cache
def _source() -> ModelSpec:
    return make_plan(Job()).source.spec("embedding")


def _float_model() -> nn.Module:
    return wrap(load_source(_source()), _source())


def _changed(change: Callable[[nn.Module], None]) -> Run:
    """The float model after `change`."""
    model = _float_model()
    with torch.no_grad():
        change(model)

    @torch.no_grad()
    def run(inputs: Inputs) -> Array:
        return np.asarray(model(**inputs).sentence_embedding.numpy(), np.float32)

    return run


def _bundle(recipe: str, target: str) -> Run:
    runtime = load_target(target).runtime.model_copy(update={"threads": 1})
    return _graph(artifacts(recipe, target)["bundle"].path / MODEL, runtime)


def _plain_dynamic() -> Run:
    with tempfile.TemporaryDirectory() as scratch:
        return _graph(plain_dynamic(Path(scratch)), Runtime(threads=1))


def _graph(model: Path, runtime: Runtime) -> Run:
    session = make_session(model, runtime)
    names = [entry.name for entry in session.get_inputs()]
    return lambda inputs: np.asarray(session.run(None, {name: inputs[name].numpy() for name in names})[0], np.float32)


def _weights(model: nn.Module) -> Iterator[Tensor]:
    """The matrices of the encoder's layers and the word table."""
    yield model.get_submodule("model.embeddings.word_embeddings").weight
    yield from (module.weight for module in model.modules() if isinstance(module, nn.Linear))


def nearest(bits: int, block: int, model: nn.Module) -> None:
    """Round the weights to the nearest of symmetric `bits`-bit codes, a scale per `block` weights of a row."""
    for weight in _weights(model):
        blocks, top = weight.view(-1, block), 2 ** (bits - 1) - 1
        scale = blocks.abs().amax(1, keepdim=True).clamp(min=1e-8) / top
        blocks.copy_((blocks / scale).round().clamp(-top, top) * scale)


def noise(level: float, model: nn.Module) -> None:
    """Add Gaussian noise of `level` standard deviations of each weight matrix."""
    generator = torch.Generator().manual_seed(0)
    for weight in _weights(model):
        weight.add_(level * weight.std() * torch.randn(weight.shape, generator=generator))


def without_layers(layers: Sequence[int], model: nn.Module) -> None:
    """Remove these of the six layers."""
    stack = model.get_submodule("model.encoder").layer
    model.get_submodule("model.encoder").layer = nn.ModuleList(
        layer for place, layer in enumerate(stack) if place not in layers
    )


def low_rank(share: float, model: nn.Module) -> None:
    """Keep the largest singular values of every linear layer, `share` of them."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            left, values, right = torch.linalg.svd(module.weight, full_matrices=False)
            rank = round(share * len(values))
            module.weight.copy_((left[:, :rank] * values[:rank]) @ right[:rank])


def narrow_ffn(share: float, model: nn.Module) -> None:
    """Remove the FFN neurons of the smallest weights, `share` of each layer's, without recovery."""
    for layer in model.get_submodule("model.encoder").layer:
        inner, outer = layer.intermediate.dense, layer.output.dense
        score = inner.weight.norm(dim=1) * outer.weight.norm(dim=0)
        outer.weight[:, score.argsort()[: round(share * len(score))]] = 0


def small_to_zero(share: float, model: nn.Module) -> None:
    """Set the smallest weights of every linear layer to zero, `share` of them."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            size = module.weight.abs()
            module.weight[size <= size.flatten().kthvalue(round(share * size.numel())).values] = 0


def _torch(change: Callable[..., None], *values: Any) -> Variant:
    return Variant(partial(_changed, partial(change, *values)), BATCH, workers=1)  # torch has threads of its own


FLOAT = _torch(lambda _: None)
VARIANTS = {
    "plain quantize_dynamic": Variant(_plain_dynamic),
    "w8a8-dynamic, alone": Variant(partial(_bundle, "w8a8-dynamic", "phone")),
    "w8a8-dynamic, padded 16": Variant(partial(_bundle, "w8a8-dynamic", "phone"), BATCH, padded=True),
    "w8a8": Variant(partial(_bundle, "w8a8", "car")),
    "w4": Variant(partial(_bundle, "w4", "robot")),
    "w4a8-dynamic": Variant(partial(_bundle, "w4a8-dynamic", "robot")),
    "4 bits to nearest": _torch(nearest, 4, 32),
    "3 bits to nearest": _torch(nearest, 3, 32),
    "2 bits to nearest": _torch(nearest, 2, 32),
    "noise 0.05": _torch(noise, 0.05),
    "noise 0.2": _torch(noise, 0.2),
    "FFN -25 %": _torch(narrow_ffn, 0.25),
    "half the rank": _torch(low_rank, 0.5),
    "without layer 3": _torch(without_layers, (3,)),
    "without layers 2, 4": _torch(without_layers, (2, 4)),
    "30 % of weights zero": _torch(small_to_zero, 0.3),
}
