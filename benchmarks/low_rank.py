"""Low-rank factors without recovery: what they cost a language model, and how far whitening and ranks by layer help."""

from __future__ import annotations

from benchmarks import tinylm
from benchmarks.row import Measured, Row
from pipeline.compress.low_rank.config import LowRank

_KEPT = 0.8
"""Of all parameters of the model. Its tied embedding, 19 % of them, stays as it is: the layers lose a quarter."""
_WINDOWS = 64


def svd20_ratio() -> Measured:
    """Increase of the held-out perplexity of whitened SVD with ranks by sensitivity, over that of the plain SVD of
    which every layer has lost the same share; beside it the latter in perplexity. Neither is trained afterwards.

    The plain side's ranks are not rounded, so that it uses all that it may; the other side may not have more.
    """
    original = tinylm.perplexity(tinylm.load())
    plain, kept = _increase(original, LowRank(method="svd", allocation="uniform", round_to=1, target_params=_KEPT))
    whitened, used = _increase(original, LowRank(method="svd_llm", target_params=kept, samples=_WINDOWS))
    assert used <= kept  # noqa: S101  # or the sides could not be compared
    return Measured(whitened / plain, plain)


def _increase(original: float, config: LowRank) -> tuple[float, float]:
    """(increase of perplexity, share of the parameters that are left)."""
    result, (facts,) = tinylm.compressed(config, windows_to_see=_WINDOWS)
    return tinylm.perplexity(result.model) - original, facts["parameters_after"] / facts["parameters_before"]


ROWS = [
    Row("tinylm.svd20.ratio", "x", "plain SVD's increase of the perplexity, same run", svd20_ratio),
]
