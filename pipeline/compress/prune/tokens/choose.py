"""Which tokens stay: the ones that nothing works without, and the ones that a corpus uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compress.prune.tokens.tokenizer_models import TokenizerModel
from pipeline.core.errors import StageError
from pipeline.core.types import Progress

_BATCH = 512


def all_ids(content: Mapping[str, Any], pieces: TokenizerModel) -> dict[str, int]:
    """Token -> id of a tokenizer.json, added tokens included."""
    return pieces.ids() | {token["content"]: token["id"] for token in content["added_tokens"]}


def count_tokens(tokenizer: Any, texts: Sequence[str], size: int, progress: Progress) -> NDArray[np.int64]:
    """How often each token id is used, int64 [size], of whole texts without special tokens."""
    counts = np.zeros(size, np.int64)
    for begin in range(0, len(texts), _BATCH):
        encoded = tokenizer(texts[begin : begin + _BATCH], add_special_tokens=False, truncation=False, verbose=False)
        counts += np.bincount(np.concatenate([np.asarray(ids, np.int64) for ids in encoded["input_ids"]]), None, size)
        progress(min(begin + _BATCH, len(texts)), len(texts))
    return counts


def choose(
    content: Mapping[str, Any],
    pieces: TokenizerModel,
    counts: NDArray[np.int64],
    min_count: int,
    keep_tokens: int | None,
) -> list[int]:
    """Ascending ids of the tokens that stay: added ones, those that are always needed, then by falling count
    (int64 [tokens]; equal counts: the lower id first) those that were used `min_count` times, each with its parts, as
    long as they fit into `keep_tokens`.

    StageError if `keep_tokens` is too few for those that are always needed.
    """
    ids = all_ids(content, pieces)
    names = {index: token for token, index in ids.items()}
    parts = {
        ids[token]: {ids[part] for part in found} for token, found in pieces.merge_parents().items() if token in ids
    }
    kept = {token["id"] for token in content["added_tokens"]}
    _add(kept, {ids[token] for token in pieces.required_tokens()}, parts)
    if keep_tokens is not None and keep_tokens < len(kept):
        raise StageError(
            f"prune: keep_tokens = {keep_tokens} is less than the {len(kept)} special tokens, characters and bytes "
            "that stay so that any text can be encoded.",
            "Raise keep_tokens.",
        )
    for index in np.lexsort((np.arange(len(counts)), -counts)):
        if counts[index] < min_count or int(index) not in names:
            continue
        needed = _add(set(kept), {int(index)}, parts)
        if keep_tokens is not None and len(needed) > keep_tokens:
            break
        kept = needed
    return sorted(kept)


def _add(kept: set[int], wanted: set[int], parts: Mapping[int, set[int]]) -> set[int]:
    """`kept` with `wanted` and all their parts, and those parts' parts."""
    waiting = list(wanted - kept)
    while waiting:
        index = waiting.pop()
        if index not in kept:
            kept.add(index)
            waiting.extend(parts.get(index, ()))
    return kept
