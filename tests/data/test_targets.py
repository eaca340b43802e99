"""What a decoder is given: labels one place later, or what the float model says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_specs import hugging_face
from transformers import T5Config, T5ForConditionalGeneration

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import DecoderSpec, LanguageSpec, ModelSpec
from pipeline.data.datasets import Dataset
from pipeline.data.samples import Row
from pipeline.data.targets import continued, cut_labels, generated, labelled, readable, up_to
from pipeline.tasks.next_tokens import DECODER_INPUTS


def tokenizer(text_target: str, truncation: bool, max_length: int) -> dict[str, list[int]]:
    """A token a letter (a is 10), and 1 at the end."""
    assert truncation
    ids = [ord(letter) - ord("a") + 10 for letter in text_target]
    return {"input_ids": [*ids[: max_length - 1], 1] if ids else []}


def row() -> Row:
    return {"input_ids": np.array([[5]])}


def test_labels_are_given_one_place_later() -> None:
    decoder = DecoderSpec(start=0)
    pairs = list(labelled(iter([row(), row()]), ["abc", "abcde"], tokenizer, decoder, 5))
    assert [found[DECODER_INPUTS].tolist() for found, _ in pairs] == [[[0, 10, 11, 12]], [[0, 10, 11, 12, 13]]]
    assert [ids for _, ids in pairs] == [[10, 11, 12, 1], [10, 11, 12, 13, 1]]


def test_texts_that_are_cut_are_counted() -> None:
    texts = ["one two three", "one", "one two three four"]
    found = Dataset("spoken", "text", ["a", "b", "c"], texts, pairs=False, digest="d", origin={})

    def words(text_target: str, verbose: bool) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text_target.split())))}

    assert cut_labels(found, words, 2) == (
        "2 of the 3 texts that 'spoken' is labelled with are cut to 2 tokens: what stands behind is not scored."
    )
    assert cut_labels(found, words, 4) == ""


def test_a_start_token_that_the_tokenizer_writes_is_not_written_twice() -> None:
    ((found, ids),) = labelled(iter([row()]), ["abc"], tokenizer, DecoderSpec(start=10), 5)
    assert (found[DECODER_INPUTS].tolist(), ids) == ([[10, 11, 12]], [11, 12, 1])


def test_an_empty_label_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        list(labelled(iter([row()]), [""], tokenizer, DecoderSpec(start=0), 5))
    assert caught.value.message == "The text that sample 1 is labelled with has no tokens."


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))
    with torch.no_grad():
        model.shared.weight.mul_(3)
    model.save_pretrained(tmp_path)
    return ModelSpec(
        name="t5",
        kind="huggingface",
        digest="d",
        task="text2text-generation",
        auto_class="AutoModelForSeq2SeqLM",
        family="next_tokens",
        data="text",
        output="logits",
        path=tmp_path,
        decoder=DecoderSpec(start=0, pad=0),
    )


def test_what_the_float_model_says_is_its_most_likely_token_at_every_place(spec: ModelSpec) -> None:
    """Samples that are padded to run together say what they say alone."""
    texts = [[7, 8, 9, 1], [7, 1], [20, 21, 22, 23, 24, 1]]
    rows = [{"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)} for ids in texts]
    model = T5ForConditionalGeneration.from_pretrained(spec.path).eval()
    for given, found in zip(rows, generated(iter(rows), spec, 9), strict=True):
        said = found[DECODER_INPUTS]
        assert said[0, 0] == 0 and said.dtype == np.int64 and 1 <= said.shape[1] <= 9
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(array) for name, array in given.items()}
            best = model(**inputs, decoder_input_ids=torch.from_numpy(said)).logits.argmax(-1).numpy()
        assert best[0, :-1].tolist() == said[0, 1:].tolist()


def test_given_decoder_inputs_stay(spec: ModelSpec) -> None:
    own = row() | {DECODER_INPUTS: np.array([[0, 3, 4]])}
    (found,) = generated(iter([own]), spec, 9)
    assert found is own


def language(**head: int) -> ModelSpec:
    sizes = {"layers": 1, "heads": 2, "size": 4, "queries": 2, "hidden": 8, "vocabulary": 50, "longest": 32}
    return hugging_face(Path(), language=LanguageSpec(**sizes), head={"tokens": 10, "every": 1, **head})


def rows_of(*texts: list[int]) -> Iterator[dict[str, Any]]:
    return ({"input_ids": np.array([ids]), "token_type_ids": np.zeros((1, len(ids)), np.int64)} for ids in texts)


def test_a_language_models_texts_stand_behind_an_empty_cache() -> None:
    found = list(continued(rows_of([5, 6, 7], [8], [9, 4]), language()))
    assert [ids for _, ids in found] == [[6, 7], [4]]
    row, _ = found[0]
    assert list(row) == ["input_ids", "attention_mask", "past_key_values.0.key", "past_key_values.0.value"]
    assert (row["attention_mask"].tolist(), row["past_key_values.0.key"].shape) == ([[1, 1, 1]], (1, 2, 0, 4))


def test_texts_of_one_token_alone_are_refused() -> None:
    with pytest.raises(UsageError) as raised:
        list(continued(rows_of([5], [6]), language()))
    assert raised.value.message == "No text has two tokens or more: there is no next one to predict."


def test_rows_are_read_until_they_have_enough_tokens() -> None:
    lengths = [len(row["input_ids"][0]) for row in up_to(rows_of([1] * 4, [1] * 5, [1] * 2, [1] * 9), 10)]
    assert lengths == [4, 5, 2]


def test_texts_that_are_left_out_are_not_shown() -> None:
    def words(text: str, verbose: bool) -> dict[str, list[str]]:  # as tokenizers are called
        return {"input_ids": text.split()}

    assert list(readable(["a b", "c", "d e f"], words)) == ["a b", "d e f"]
