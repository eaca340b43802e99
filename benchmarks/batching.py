"""Does a bundle answer a text alike alone and in a padded batch? The default bundles, on four kinds of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.data import ag_news, gsm8k_problems, imdb_reviews
from benchmarks.minilm import MODEL, artifacts
from benchmarks.row import Measured
from pipeline.config.job import Job
from pipeline.config.loading import load_target
from pipeline.config.target import Runtime
from pipeline.data.datasets import load_evaluation
from pipeline.data.encode import load_tokenizer
from pipeline.metrics.fidelity import top_k_overlap
from pipeline.plan.build import make_plan
from pipeline.runtime.session import make_session

Array = NDArray[np.float32]
TARGETS = ("phone", "car", "robot")
BATCH, LENGTH = 16, 128


def text_en() -> list[str]:
    """All texts of the shipped evaluation sets, without their labels."""
    samples = [sample for dataset in load_evaluation("text-en") for sample in dataset.samples]
    return [text for sample in samples for text in ([sample] if isinstance(sample, str) else sample)]


SETS: dict[str, Callable[[], list[str]]] = {
    "text-en": text_en,
    "ag_news": ag_news,
    "imdb": lambda: imdb_reviews()[:600],
    "gsm8k": lambda: gsm8k_problems()[:600],
}


def batch_top10_difference() -> Measured:
    """The largest |top-10 overlap one text at a time - in padded batches of 16| over targets and kinds of text; beside
    it the lowest overlap of any of them. Prints all."""
    differences, overlaps = [], []
    for target in map(load_target, TARGETS):
        for name in SETS:
            alone, padded = top10(target.recipe, target.runtime.model_dump_json(), name)
            print(f"  {target.name} ({target.recipe}), {name}: {alone:.4f} alone, {padded:.4f} in padded batches")
            differences.append(abs(alone - padded))
            overlaps += [alone, padded]
    return Measured(max(differences), min(overlaps))


@cache
def top10(recipe: str, runtime: str, texts: str) -> tuple[float, float]:
    """Share of float's ten nearest neighbours that a recipe's bundle keeps: (one text at a time, in padded batches).
    `runtime`: as JSON; targets that share it and the recipe share the model."""
    made = artifacts(recipe, next(name for name in TARGETS if load_target(name).recipe == recipe))
    session = make_session(made["bundle"].path / MODEL, Runtime.model_validate_json(runtime))
    expected, rows = _float(made["trace.float"].path, texts), _tokens(texts)
    alone, padded = (top_k_overlap(expected, embed(session, rows, size), k=10) for size in (1, BATCH))
    return alone, padded


@cache
def _tokens(texts: str) -> tuple[dict[str, list[int]], ...]:
    tokenizer = load_tokenizer(make_plan(Job()).source.path)
    return tuple(dict(tokenizer(text, truncation=True, max_length=LENGTH)) for text in SETS[texts]())


@cache
def _float(original: Path, texts: str) -> Array:
    return embed(make_session(original / MODEL, Runtime(threads=2)), _tokens(texts), 1)


def embed(session: ort.InferenceSession, rows: Sequence[dict[str, list[int]]], size: int) -> Array:
    """The first output, float32 [texts, dimensions], of batches of `size` in the texts' order, each padded with zeros
    (the model's padding token) to its longest text."""
    names = [entry.name for entry in session.get_inputs()]
    found = [
        session.run(None, {name: _padded([row[name] for row in rows[start : start + size]]) for name in names})[0]
        for start in range(0, len(rows), size)
    ]
    return np.concatenate(found)


def _padded(lists: Sequence[list[int]]) -> NDArray[np.int64]:
    longest = max(map(len, lists))
    return np.array([values + [0] * (longest - len(values)) for values in lists], np.int64)
