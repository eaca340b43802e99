"""How honest the shipped evaluation texts are: the neighbours that damaged models keep on them, and on real texts.

Every figure is the share of float's ten nearest cosine neighbours kept, of texts cut at 128 tokens: among all shipped
texts without labels, as the product judges them, and among `COUNT` of each real set, as the published figures are. The
share falls with the number of texts; among `COUNT` of the shipped ones it is shown too.
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
PART = f"{COUNT} of it"
LIMIT = 2.0


def max_difference() -> Measured:
    """Largest difference in points of top-10, over the variants, between our texts and the mean of the real sets;
    beside it the limit. Prints every variant's shares."""
    print(f"{'top-10':<26}" + "".join(f"{name:>10}" for name in (OURS, PART, *real_sets())))
    return Measured(max(abs(_printed(name, kept(variant))) for name, variant in VARIANTS.items()), LIMIT)


def _printed(name: str, shares: dict[str, float]) -> float:
    """Points that our texts keep more than the mean of the others; printed with the shares."""
    real = float(np.mean([shares[of] for of in real_sets()]))
    points = 100 * (shares[OURS] - real)
    print(f"{name:<26}" + "".join(f"{share:10.3f}" for share in shares.values()) + f"{points:+8.1f} points", flush=True)
    return points


def _chosen(count: int) -> list[int]:
    """`COUNT` of `count` places, chosen at random with one seed."""
    return random.Random(0).sample(range(count), COUNT)  # noqa: S311  # no secret


@cache
def real_sets() -> dict[str, list[str]]:
    """`COUNT` texts a set."""
    whole = {"AG News": ag_news(None), "IMDB": imdb_reviews(), "GSM8K": gsm8k_problems()}
    return {name: [texts[place] for place in _chosen(len(texts))] for name, texts in whole.items()}


@cache
def shipped_texts() -> list[str]:
    """All evaluation texts that have no labels."""
    return [text for part in load_evaluation(OURS) if not part.pairs for text in part.samples]


def kept(variant: Variant) -> dict[str, float]:
    """Share of float's ten nearest neighbours that the variant keeps, by set."""
    ours, part = embedded(shipped_texts(), variant), _chosen(len(shipped_texts()))
    return {
        OURS: top_k_overlap(_float(OURS), ours, k=10),
        PART: top_k_overlap(_float(OURS)[part], ours[part], k=10),
        **{name: top_k_overlap(_float(name), embedded(texts, variant), k=10) for name, texts in real_sets().items()},
    }


@cache
def _float(name: str) -> Array:
    return embedded(shipped_texts() if name == OURS else real_sets()[name], FLOAT)


ROWS = [Row("texten.max_difference", "points of top-10", "limit", max_difference)]
