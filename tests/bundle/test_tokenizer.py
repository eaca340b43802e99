"""The tokenizer that ships: cut and padded as the app needs it, and the same tokens as here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_specs import hugging_face
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from pipeline.bundle.tokenizer import write_tokenizer
from pipeline.core.errors import StageError
from pipeline.core.model_spec import InputSpec
from pipeline.data.samples import Row

WORDS = {"[PAD]": 0, "[UNK]": 1, "[END]": 2, "a": 3, "b": 4, "c": 5}
SETTINGS = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": 512}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Words a, b and c; it was trained with texts cut at 3 tokens and always padded to 8."""
    made = tmp_path / "model"
    made.mkdir()
    tokenizer = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A [END]", special_tokens=[("[END]", 2)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8, pad_id=0, pad_token="[PAD]")  # noqa: S106
    tokenizer.save(str(made / "tokenizer.json"))
    (made / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    return made


def shipped(folder: Path, out: Path, texts: list[str], rows: list[Row], **inputs: InputSpec) -> Tokenizer:
    out.mkdir()
    spec = hugging_face(folder, inputs=inputs)
    write_tokenizer(out, spec, 5, texts, rows)
    return Tokenizer.from_file(str(out / "tokenizer.json"))


def row(*ids: int) -> Row:
    return {"input_ids": np.array([ids]), "attention_mask": np.array([[int(i != 0) for i in ids]])}


def test_texts_are_cut_where_the_model_was_checked_and_padded_to_the_longest(folder: Path, tmp_path: Path) -> None:
    tokenizer = shipped(folder, tmp_path / "out", ["a B"], [row(3, 4, 2)])
    assert [encoded.ids for encoded in tokenizer.encode_batch(["a b", "a b c a b c", "a"])] == [
        *([3, 4, 2, 0, 0], [3, 4, 5, 3, 2], [3, 2, 0, 0, 0])
    ]
    assert tokenizer.encode("a").ids == [3, 2]
    assert json.loads((tmp_path / "out/tokenizer_config.json").read_text()) == SETTINGS | {"model_max_length": 5}


def test_a_graph_of_one_length_gets_texts_of_that_length(folder: Path, tmp_path: Path) -> None:
    ids = InputSpec(dtype="int64", shape=("batch", 4))
    tokenizer = shipped(folder, tmp_path / "out", ["a"], [row(3, 2, 0, 0)], input_ids=ids)
    assert tokenizer.encode("b").ids == [4, 2, 0, 0]


def test_no_padding_without_a_token_for_it(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | {"padding": None}))
    (folder / "tokenizer_config.json").write_text(json.dumps({**SETTINGS, "pad_token": None}))
    tokenizer = shipped(folder, tmp_path / "out", [], [])
    assert [encoded.ids for encoded in tokenizer.encode_batch(["a b", "a"])] == [[3, 4, 2], [3, 2]]


@pytest.mark.parametrize("pad", ["[PAD]", {"content": "[PAD]", "lstrip": False}])
def test_padding_token_of_the_settings(folder: Path, tmp_path: Path, pad: Any) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | {"padding": None}))
    (folder / "tokenizer_config.json").write_text(json.dumps({**SETTINGS, "pad_token": pad, "padding_side": "left"}))
    tokenizer = shipped(folder, tmp_path / "out", [], [])
    assert [encoded.ids for encoded in tokenizer.encode_batch(["a b", "a"])] == [[3, 4, 2], [0, 3, 2]]


def test_cut_texts_prove_it_too(folder: Path, tmp_path: Path) -> None:
    tokenizer = shipped(folder, tmp_path / "out", ["a b c a b c"], [row(3, 4, 5, 3, 2)])
    assert tokenizer.encode("a b c a b c").ids == [3, 4, 5, 3, 2]


def test_one_that_makes_other_tokens_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        shipped(folder, tmp_path / "out", ["a b"], [row(3, 5, 2)])
    assert caught.value.message == (
        "The tokenizer of 'model' makes other tokens in an app than here: its tokenizer.json leaves out what its "
        "Python class does."
    )


def test_no_tokenizer_where_the_samples_were_inputs(tmp_path: Path) -> None:
    spec = hugging_face(tmp_path)
    assert write_tokenizer(tmp_path / "out", spec, 5, [], [row(3)]) == []


def test_class_that_clients_with_an_older_transformers_know(folder: Path, tmp_path: Path) -> None:
    settings = SETTINGS | {"tokenizer_class": "TokenizersBackend"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    shipped(folder, tmp_path / "out", ["a"], [row(3, 2)])
    assert json.loads((tmp_path / "out/tokenizer_config.json").read_text()) == SETTINGS | {"model_max_length": 5}
