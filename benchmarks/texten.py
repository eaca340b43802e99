"""How honest the shipped evaluation texts are: the neighbours that damaged models keep on them, and on real texts.

Every figure is the share of float's ten nearest cosine neighbours kept among `COUNT` texts of one set, a seeded choice,
each cut at 128 tokens. The share falls with the number of texts, so that all sets have the same.
"""

from __future__ import annotations

import random
from functools import cache

import numpy as np

from benchmarks.damage import FLOAT, VARIANTS, Array, Variant, embedded
from benchmarks.data import ag_news, gsm8k_problems, imdb_reviews
from benchmarks.row import Measured, Row
from pipeline.metrics.fidelity import top_k_overlap
from pipeline.source.datasets import load_evaluation

COUNT = 600
OURS = "text-en"
LIMIT = 2.0


def max_difference() -> Measured:
    """Largest difference in points of top-10, over the variants, between our texts and the mean of the real sets;
    beside it the limit. Prints every variant's shares."""
    print(f"{f'top-10 among {COUNT} texts':<26}" + "".join(f"{name:>9}" for name in text_sets()))
    return Measured(max(abs(_printed(name, kept(variant))) for name, variant in VARIANTS.items()), LIMIT)


def _printed(name: str, shares: dict[str, float]) -> float:
    """Points that our texts keep more than the mean of the others; printed with the shares."""
    real = float(np.mean([share for of, share in shares.items() if of != OURS]))
    points = 100 * (shares[OURS] - real)
    print(f"{name:<26}" + "".join(f"{share:9.3f}" for share in shares.values()) + f"{points:+8.1f} points", flush=True)
    return points


@cache
def text_sets() -> dict[str, list[str]]:
    """`COUNT` texts a set, chosen at random with one seed."""
    ours = [text for part in load_evaluation(OURS) if not part.pairs for text in part.samples]
    whole = {OURS: ours, "AG News": ag_news(None), "IMDB": imdb_reviews(), "GSM8K": gsm8k_problems()}
    return {name: random.Random(0).sample(texts, COUNT) for name, texts in whole.items()}  # noqa: S311  # no secret


def kept(variant: Variant) -> dict[str, float]:
    """Share of float's ten nearest neighbours that the variant keeps, by set."""
    return {name: top_k_overlap(_float(name), embedded(texts, variant), k=10) for name, texts in text_sets().items()}


@cache
def _float(name: str) -> Array:
    return embedded(text_sets()[name], FLOAT)


ROWS = [Row("texten.max_difference", "points of top-10", "limit", max_difference)]
