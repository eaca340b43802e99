"""How honest the shipped evaluation texts are: the neighbours that damaged models keep on them, and on real texts.

Every figure is the share of float's ten nearest cosine neighbours kept, of texts cut at 128 tokens, among all shipped
texts without labels and among as many of each real set: the share falls with the number of texts, so that only sets of
one size can be compared.
"""

from __future__ import annotations

import random
from functools import cache

import numpy as np

from benchmarks.damage import FLOAT, VARIANTS, Array, Variant, embedded
from benchmarks.data import ag_news, gsm8k_problems, imdb_reviews
from benchmarks.row import Measured, Row
from pipeline.data.datasets import load_evaluation
from pipeline.metrics.fidelity import top_k_overlap

OURS = "text-en"
LIMIT = 2.0


def max_difference() -> Measured:
    """Largest difference in points of top-10, over the variants, between our texts and the mean of the real sets;
    beside it the limit. Prints every variant's shares."""
    print(f"{'top-10':<26}" + "".join(f"{name:>10}" for name in (OURS, *real_sets())))
    return Measured(max(abs(_printed(name, kept(variant))) for name, variant in VARIANTS.items()), LIMIT)


def _printed(name: str, shares: dict[str, float]) -> float:
    """Points that our texts keep more than the mean of the others; printed with the shares."""
    real = float(np.mean([shares[of] for of in real_sets()]))
    points = 100 * (shares[OURS] - real)
    print(f"{name:<26}" + "".join(f"{share:10.3f}" for share in shares.values()) + f"{points:+8.1f} points", flush=True)
    return points


@cache
def real_sets() -> dict[str, list[str]]:
    """Of each set as many texts as are shipped, chosen at random with one seed."""
    whole = {"AG News": ag_news(None), "IMDB": imdb_reviews(), "GSM8K": gsm8k_problems()}
    count = len(shipped_texts())
    return {name: random.Random(0).sample(texts, count) for name, texts in whole.items()}  # noqa: S311  # no secret


@cache
def shipped_texts() -> list[str]:
    """All evaluation texts that have no labels."""
    return [text for part in load_evaluation(OURS) if not part.pairs for text in part.samples]


def kept(variant: Variant) -> dict[str, float]:
    """Share of float's ten nearest neighbours that the variant keeps, by set."""
    sets = {OURS: shipped_texts(), **real_sets()}
    return {name: top_k_overlap(_float(name), embedded(texts, variant), k=10) for name, texts in sets.items()}


@cache
def _float(name: str) -> Array:
    return embedded(shipped_texts() if name == OURS else real_sets()[name], FLOAT)


ROWS = [Row("texten.max_difference", "points of top-10", "limit", max_difference)]
