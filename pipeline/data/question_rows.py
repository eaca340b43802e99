"""Questions and their contexts, to tokens: which characters of the context each token is of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import refused
from pipeline.data.datasets import Dataset
from pipeline.data.samples import Row


def question_rows(dataset: Dataset, tokenizer: Any, max_length: int, aligned: list[Any]) -> Iterator[Row]:
    """Inputs int64 [1, tokens] of each sample, whose context is cut where both are longer than `max_length`; of a set
    with answers, the label with its `context` and each token's `places` there (see `context_places`) is appended to
    `aligned`.

    UsageError if the tokenizer cannot say where a token stands, or a question alone is too long.
    """
    if not tokenizer.is_fast:
        raise UsageError("The tokenizer cannot say where a token stands in a text.", "Add the model's tokenizer.json.")
    for index, (question, context) in enumerate(dataset.samples):
        with refused(f"A question of {dataset.name!r} cannot be encoded in {max_length} tokens", "Shorten it."):
            encoded = tokenizer(question, context, truncation="only_second", max_length=max_length)
        found = encoded.encodings[0]
        if dataset.labels is not None:
            places = context_places(found.offsets, found.sequence_ids)
            aligned.append({**dataset.labels[index], "context": context, "places": places})
        yield {name: np.asarray([encoded[name]], np.int64) for name in tokenizer.model_input_names if name in encoded}


def context_places(offsets: list[tuple[int, int]], texts: list[int | None]) -> list[list[int]]:
    """[first character, one after the last] of each token of the second text; [0, 0] of all others."""
    return [list(place) if text == 1 else [0, 0] for place, text in zip(offsets, texts, strict=True)]


def cut_contexts(dataset: Dataset, tokenizer: Any, max_length: int) -> str:
    """Says how many contexts of a set of questions are longer than the model is given; empty if none is."""
    lengths = [len(tokenizer(*sample, verbose=False)["input_ids"]) for sample in dataset.samples]
    cut = sum(length > max_length for length in lengths)
    if not cut:
        return ""
    return (
        f"{cut} of the {len(lengths)} contexts of {dataset.name!r} are cut to {max_length} tokens with their question: "
        "answers that stand behind are not found."
    )
