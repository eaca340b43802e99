"""Size, speed and accuracy of the default model's bundles."""

from __future__ import annotations

import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import latency
from benchmarks.data import ag_news, sts_dev
from benchmarks.row import Measured, Row
from benchmarks.texts import news_like_text, training_text
from benchmarks.training_time import cpu_seconds, run_plan
from pipeline.config.job import Job
from pipeline.config.loading import load_target
from pipeline.config.target import Runtime
from pipeline.core.artifact import Artifact
from pipeline.core.store import default_store
from pipeline.data.encode import load_tokenizer
from pipeline.data.samples import open_samples, write_samples
from pipeline.metrics.fidelity import top_k_overlap
from pipeline.metrics.task import spearman_of_pairs
from pipeline.plan.build import make_plan
from pipeline.runtime.infer import judged_outputs
from pipeline.runtime.session import make_session

Array = NDArray[np.float32]
MODEL = "model.onnx"
CPU_MINUTES = 25.0
RECIPES = Path(__file__).parent / "recipes"
_TEXTS = {"minilm-3layer": news_like_text}
"""Recipe -> the text that it trains on, where that is not the general one."""


@cache
def artifacts(recipe: str, target: str) -> dict[str, Artifact]:
    """The stages' results of an export of the default model, from the store where they are there."""
    own = RECIPES / f"{recipe}.toml"
    texts = _TEXTS.get(recipe, training_text)(default_store() / "texts") if own.is_file() else None
    plan = make_plan(
        Job(
            target=target,
            recipe=str(own) if own.is_file() else recipe,
            training_data=(str(texts),) if texts else (),
        )
    )
    return run_plan(plan)


def cpu_minutes(recipe: str, target: str) -> Measured:
    """CPU minutes that all training took when it ran, beside a limit."""
    trained = [made for name, made in artifacts(recipe, target).items() if name.endswith(".distill")]
    return Measured(sum(map(cpu_seconds, trained)) / 60, CPU_MINUTES)


def megabytes(recipe: str, target: str) -> Measured:
    """MB (10^6 bytes) of model.onnx and its data file, beside float's."""
    made = artifacts(recipe, target)
    return Measured(_model_bytes(made["bundle"].path), _model_bytes(made["trace.float"].path))


def _model_bytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("model.onnx*")) / 1e6


def speedup(recipe: str, target: str) -> Measured:
    """Float latency over bundle latency; beside it float's own ms."""
    made = artifacts(recipe, target)
    return latency.speedup(made["bundle"], made["trace.float"], load_target(target))


def stsb_dev(recipe: str, target: str) -> Measured:
    """Spearman correlation x100 on STS-B dev, beside float's."""
    bundle, original = _both(recipe, target, _pair_texts(), "stsb")
    return Measured(_pair_score(bundle), _pair_score(original))


def _pair_texts() -> list[str]:
    pairs = sts_dev()
    return [pair[1] for pair in pairs] + [pair[2] for pair in pairs]


def _pair_score(embeddings: Array) -> float:
    scores = np.array([pair[0] for pair in sts_dev()])
    return spearman_of_pairs(embeddings[: len(scores)], embeddings[len(scores) :], scores)


def stsb_dev_of(model: Path, float_model: Path, runtime: Runtime) -> Measured:
    """The same of any ONNX file of the default model."""
    texts = _pair_texts()
    original = _float_embeddings(str(float_model), tuple(texts), "stsb")
    return Measured(_pair_score(_embed(model, runtime, texts, make_plan(Job()).source.path)), _pair_score(original))


def top10_of(model: Path, float_model: Path, runtime: Runtime) -> Measured:
    """As `top10`, of any ONNX file of the default model."""
    original = _float_embeddings(str(float_model), tuple(ag_news()), "agnews")
    return Measured(top_k_overlap(original, _embed(model, runtime, ag_news(), make_plan(Job()).source.path), k=10), 1.0)


def top10(recipe: str, target: str) -> Measured:
    """Share of the float model's ten nearest neighbours kept, over 600 AG News items."""
    bundle, original = _both(recipe, target, ag_news(), "agnews")
    return Measured(top_k_overlap(original, bundle, k=10), 1.0)


def _both(recipe: str, target: str, texts: list[str], tag: str) -> tuple[Array, Array]:
    """(bundle's, float's) embeddings of `texts`."""
    made = artifacts(recipe, target)
    runtime = load_target(target).runtime
    bundle = _embed(made["bundle"].path / MODEL, runtime, texts, made["bundle"].path)
    return bundle, _float_embeddings(str(made["trace.float"].path / MODEL), tuple(texts), tag)


@cache
def _float_embeddings(model: str, texts: tuple[str, ...], _: str) -> Array:
    return _embed(Path(model), Runtime(threads=2), list(texts), make_plan(Job()).source.path)


def _embed(model: Path, runtime: Runtime, texts: list[str], tokenizer_folder: Path) -> Array:
    tokenizer = load_tokenizer(tokenizer_folder)
    rows = (tokenizer(text, truncation=True, max_length=128) for text in texts)
    with tempfile.TemporaryDirectory() as scratch:
        write_samples(Path(scratch), ({n: np.array([v], np.int64) for n, v in row.items()} for row in rows))
        return judged_outputs(make_session(model, runtime), open_samples(Path(scratch)))


def rows(name: str, recipe: str, target: str) -> list[Row]:
    """The figures of one recipe."""
    return [
        Row(f"{name}.mb", "MB", "float32", partial(megabytes, recipe, target)),
        Row(f"{name}.speedup", "x", "float32, ms (1 thread, 128 tokens, same run)", partial(speedup, recipe, target)),
        Row(f"{name}.stsb_dev", "Spearman x100", "float32", partial(stsb_dev, recipe, target)),
        Row(f"{name}.top10", "share", "float32", partial(top10, recipe, target)),
    ]
