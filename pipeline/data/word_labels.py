"""Words with a label each, to tokens: the label goes to a word's first token, the others are not scored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.core.errors import UsageError
from pipeline.data.datasets import Dataset
from pipeline.data.readers.text_files import IGNORED
from pipeline.data.samples import Row


def word_rows(dataset: Dataset, tokenizer: Any, max_length: int, aligned: list[list[int]]) -> Iterator[Row]:
    """Inputs int64 [1, tokens] of each sample; of a labelled set, its tokens' labels are appended to `aligned`.

    UsageError if the tokenizer cannot say which word a token is of, or wants words with a space before them.
    """
    if not tokenizer.is_fast:
        raise UsageError("The tokenizer cannot say which word a token is of.", "Add the model's tokenizer.json.")
    for index, words in enumerate(dataset.samples):
        try:
            encoded = tokenizer(list(words), is_split_into_words=True, truncation=True, max_length=max_length)
        except AssertionError as error:
            raise UsageError(
                f"The tokenizer does not take words: {error}", 'Set "add_prefix_space": true in tokenizer_config.json.'
            ) from error
        if dataset.labels is not None:
            aligned.append(align(encoded.word_ids(), dataset.labels[index]))
        yield {name: np.asarray([encoded[name]], np.int64) for name in tokenizer.model_input_names if name in encoded}


def align(word_ids: list[int | None], labels: list[int]) -> list[int]:
    """The label of each token: its word's if it is the first of it, else -100 (special tokens have no word)."""
    pairs = zip(word_ids, [None, *word_ids], strict=False)
    return [IGNORED if word is None or word == before else labels[word] for word, before in pairs]
