from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from pipeline.core.errors import UsageError
from pipeline.tasks.language_model import LANGUAGE_MODEL, judged_places, next_tokens
from pipeline.tasks.output_kind import Output

TEXTS = [[3, 1, 4, 1, 5, 9], [2, 6, 5]]


@pytest.mark.parametrize(
    ("tokens", "every", "expected"),
    [(6, 1, [0, 1, 2, 3, 4]), (6, 2, [1, 3]), (6, 5, [4]), (6, 40, [4]), (2, 1, [0]), (2, 9, [0]), (7, 3, [2, 5])],
)
def test_judged_places(tokens: int, every: int, expected: list[int]) -> None:
    assert list(range(tokens))[judged_places(tokens, every)] == expected
    assert next_tokens(np.arange(100, 100 + tokens), every) == [101 + place for place in expected]


def rows_of(texts: list[list[int]], every: int, seed: int = 0, padded: int = 0) -> np.ndarray:
    """Of logits drawn for each text."""
    kind = LANGUAGE_MODEL.bound(("logits",), {"every": every})
    generator = np.random.default_rng(seed)
    found = []
    for text in texts:
        logits = generator.normal(0, 3, (1, len(text) + padded, 12)).astype(np.float32)
        mask = np.array([[1] * len(text) + [0] * padded])
        found.append(kind.rows({"logits": logits}, {"input_ids": mask * 2, "attention_mask": mask}))
    return kind.join(found)


def test_rows_are_of_tokens_that_have_a_next_one() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(0, 3, (1, 6, 12)).astype(np.float32)
    rows = rows_of(TEXTS, 1)
    assert (rows.shape, rows.dtype) == ((7, 12), np.float16)
    np.testing.assert_allclose(rows[:5].astype(np.float64), log_softmax(first[0, :5], axis=1), rtol=1e-3)
    assert rows_of(TEXTS, 2).shape == (3, 12)


def test_padding_is_no_token() -> None:
    assert rows_of(TEXTS, 1, padded=3).shape == (7, 12)


def test_scores_and_the_drop_of_each_row() -> None:
    rows, other = rows_of(TEXTS, 1), rows_of(TEXTS, 1, seed=1)
    labels = [next_tokens(np.array(text), 1) for text in TEXTS]
    tokens = np.array([1, 4, 1, 5, 9, 6, 5])
    scores = LANGUAGE_MODEL.against(labels, rows)
    expected = np.exp(-rows[np.arange(7), tokens].astype(np.float64).mean())
    assert scores["perplexity"] == pytest.approx(expected)
    assert scores["next_token_accuracy"] == 100 * np.mean(rows.argmax(1) == tokens)
    fidelity = LANGUAGE_MODEL.fidelity(rows, other)
    assert fidelity.scores["agreement"] == np.mean(rows.argmax(1) == other.argmax(1))
    assert fidelity.scores["kl"] > 0.5
    of_other = LANGUAGE_MODEL.against(labels, other)
    drops = LANGUAGE_MODEL.drops(labels, other, rows)
    assert drops.mean() == pytest.approx(scores["next_token_accuracy"] - of_other["next_token_accuracy"])
    assert LANGUAGE_MODEL.drops(None, other, rows).mean() == pytest.approx(fidelity.drop)
    assert LANGUAGE_MODEL.samples_of(7, labels).tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_a_tokenizer_of_a_larger_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError) as raised:
        LANGUAGE_MODEL.against([[12] * 7], rows_of(TEXTS, 1))
    assert raised.value.message == "The tokenizer makes the token 12; the model has 12."


@pytest.mark.parametrize(
    ("layers", "hidden", "vocabulary", "tokens", "every"),
    [
        (6, 256, 4096, 32_768, 2),
        (30, 576, 49_152, 6_768, 5),  # SmolLM-135M
        (16, 2048, 128_256, 4_096, 8),  # Llama-3.2-1B
        (32, 4096, 128_256, 4_096, 8),
    ],
)
def test_large_models_read_fewer_tokens_and_large_vocabularies_are_judged_at_fewer(
    layers: int, hidden: int, vocabulary: int, tokens: int, every: int, tmp_path: Path
) -> None:
    config = {"num_hidden_layers": layers, "hidden_size": hidden, "vocab_size": vocabulary}
    assert LANGUAGE_MODEL.found_head(config, {}, tmp_path) == {"tokens": tokens, "every": every}
    inner = {"text_config": config, "hidden_size": 1}
    assert LANGUAGE_MODEL.found_head(inner, {}, tmp_path) == {"tokens": tokens, "every": every}
    older = {"n_layer": layers, "n_embd": hidden, "vocab_size": vocabulary}
    assert LANGUAGE_MODEL.found_head(older, {}, tmp_path) == {"tokens": tokens, "every": every}


def test_it_takes_logits_of_every_token() -> None:
    assert LANGUAGE_MODEL.fits(Output("logits", "float32", (None, None, 12)))
    assert not LANGUAGE_MODEL.fits(Output("logits", "float32", (None, 12)))
    assert not LANGUAGE_MODEL.fits(Output("ids", "int64", (None, None, 12)))
