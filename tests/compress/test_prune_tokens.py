"""Trimming a model's vocabulary: rows, tied heads, the config, and the same embeddings as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_specs import hugging_face
from stages import run_pass
from torch import nn
from transformers import AutoModel, LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaModel

from pipeline.compress import CALIBRATION, PREVIOUS_CALIBRATION, SOURCE_CALIBRATION
from pipeline.compress.compressed_model import load_compressed
from pipeline.compress.edits import replay
from pipeline.compress.edits.tokens import KeepTokens
from pipeline.compress.prune.tokens.config import PruneTokens
from pipeline.compress.prune.tokens.run import make_edit
from pipeline.compress.prune.tokens.trim_tokenizer import KEPT
from pipeline.compress.prune.tokens.trim_tokenizer import run as trim
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError, UsageError
from pipeline.core.model_spec import ModelSpec
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import silent
from pipeline.data.encode import TOKENIZER, calibration, load_tokenizer, with_tokenizer

TEXTS = [f"the {thing} can {verb} {place}" for thing in ("car", "robot", "phone") for verb in ("work", "find", "ask")
         for place in ("in the room", "by the water")]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "texts.txt"
    file.write_text("\n".join(TEXTS) + "\n")
    return file


def trimmed(source: ModelSpec, corpus: Path, out: Path, **amount: Any) -> tuple[dict[str, Any], Artifact]:
    """The `vocabulary` stage."""
    out.mkdir()
    config = {"data": [str(corpus)], "min_count": 1, "keep_tokens": None, **amount}
    facts = trim(StageContext(config, {}, out, silent, models={MODEL: source}))
    return facts, Artifact(out, "vocabulary.0", "k", "d", facts)


def cut(source: ModelSpec, corpus: Path, out: Path, tokenizer: dict[str, Artifact]) -> Artifact:
    """The samples of the corpus."""
    out.mkdir()
    config = {"spec": str(corpus), "limit": 16, "max_length": 32, "random": False}
    config |= {"columns": {}, "classes": {}}
    return Artifact(
        out, "samples", "k", "d", calibration(StageContext(config, tokenizer, out, silent, models={MODEL: source}))
    )


def test_embeddings_of_texts_of_kept_tokens_do_not_change(tiny_encoder: Path, corpus: Path, tmp_path: Path) -> None:
    source = hugging_face(tiny_encoder)
    facts, tokenizer = trimmed(source, corpus, tmp_path / "vocabulary")
    before = cut(source, corpus, tmp_path / "before", {})
    after = cut(source, corpus, tmp_path / "after", {TOKENIZER: tokenizer})
    inputs = {
        TOKENIZER: tokenizer,
        CALIBRATION: after,
        PREVIOUS_CALIBRATION: before,
        SOURCE_CALIBRATION: before,
    }
    table = {"pass": "prune", "unit": "tokens", "data": str(corpus)}
    found, inputs = run_pass(table, source, inputs, tmp_path / "pass")
    rows = facts["tokens_before"] - facts["tokens_after"]
    assert rows > 50
    assert found["parameters_before"] - found["parameters_after"] == rows * 32
    assert found["config"] == {"pad_token_id": 0, "vocab_size": facts["tokens_after"]}
    assert found["metric_after"]["scores"] == found["metric_before"]["scores"]
    assert found["metric_before"]["megabytes"] - found["metric_after"]["megabytes"] == pytest.approx(
        rows * 128e-6, abs=1e-3
    )
    models = load_compressed(source, {}).model, load_compressed(source, inputs).model
    tokenizers = (load_tokenizer(of.tokenizer_folder) for of in (source, with_tokenizer(source, inputs)))
    encoded = [one(TEXTS, return_tensors="pt", padding=True) for one in tokenizers]
    assert encoded[0]["input_ids"].shape == encoded[1]["input_ids"].shape
    assert encoded[1]["input_ids"].max() < facts["tokens_after"] <= encoded[0]["input_ids"].max()
    with torch.inference_mode():
        one, other = (model(**texts).last_hidden_state for model, texts in zip(models, encoded, strict=True))
    assert torch.equal(one, other)


def test_transformers_can_load_what_is_left(tiny_bert: Path, corpus: Path, tmp_path: Path) -> None:
    source = hugging_face(tiny_bert)
    _, tokenizer = trimmed(source, corpus, tmp_path / "out")
    keep = tuple(json.loads((tmp_path / "out" / KEPT).read_text()))
    model = AutoModel.from_pretrained(tiny_bert).eval()
    replay(model, [make_edit(model, keep).model_dump(mode="json")])
    model.save_pretrained(tmp_path / "saved")
    assert AutoModel.from_pretrained(tmp_path / "saved").config.vocab_size == len(keep)
    written = json.loads((tokenizer.path / "config.json").read_text())
    assert (written["vocab_size"], written["pad_token_id"]) == (len(keep), 0)


def test_a_second_trimming_goes_on_from_the_first(tiny_encoder: Path, corpus: Path, tmp_path: Path) -> None:
    source = hugging_face(tiny_encoder)
    facts, first = trimmed(source, corpus, tmp_path / "1")
    (tmp_path / "2").mkdir()
    config = {"data": [str(corpus)], "min_count": 12, "keep_tokens": None}
    again = trim(StageContext(config, {TOKENIZER: first}, tmp_path / "2", silent, models={MODEL: source}))
    assert again["tokens_before"] == facts["tokens_after"] > again["tokens_after"]


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_models_head_loses_the_same_rows(tied: bool) -> None:
    config = LlamaConfig(
        **{"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": tied},
        **{"bos_token_id": 3, "eos_token_id": [4, 9], "pad_token_id": None},
    )
    model = LlamaForCausalLM(config).eval()
    edit = make_edit(model, (0, 3, 4, 7, 9))
    assert (edit.tables, edit.heads) == (("model.embed_tokens",), ("lm_head",))
    with torch.inference_mode():
        before = model(input_ids=torch.tensor([[3, 7, 9]])).logits
        edit.apply(model)
        after = model(input_ids=torch.tensor([[1, 3, 4]])).logits
    assert torch.allclose(after, before[..., [0, 3, 4, 7, 9]], atol=1e-6)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert (config.vocab_size, config.bos_token_id, config.eos_token_id) == (5, 1, [2, 4])


def test_plain_modules_too() -> None:
    model = nn.ModuleDict({"words": nn.Embedding(12, 4, padding_idx=2), "types": nn.Embedding(2, 4)})
    edit = make_edit(model, (0, 2, 5))
    assert (edit.tables, edit.heads, edit.config) == (("words",), (), ())
    edit.apply(model)
    assert (model["words"].num_embeddings, model["words"].padding_idx) == (3, 1)
    with pytest.raises(StageError) as caught:
        make_edit(nn.ModuleDict({"words": nn.Embedding(12, 4)}), (0, 12))
    assert caught.value.message == "prune: ModuleDict has no embedding of 13 tokens or more."


def test_positions_counted_from_the_padding_token() -> None:
    model = RobertaModel(
        RobertaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    )
    replay(model, [make_edit(model, (0, 1, 2, 5)).model_dump(mode="json")])
    with pytest.raises(StageError) as caught:
        make_edit(model, (1, 2, 3)).apply(model)
    assert caught.value.message == (
        "prune: RobertaModel counts positions from the id 1 of its padding token, which a smaller vocabulary would "
        "change."
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (KeepTokens(tables=("a",), keep=(0,)), "The edits name 'a', which the model does not have."),
        (KeepTokens(tables=("other",), keep=(0,)), "The edits name 'other' as an Embedding, but it is a Linear."),
        (KeepTokens(tables=("words",), keep=(0, 12)), "The edit of 'words' keeps 2 tokens that do not fit its 12."),
        (KeepTokens(tables=("words",), keep=()), "The edit of 'words' keeps 0 tokens that do not fit its 12."),
    ],
)
def test_edits_that_do_not_fit_the_model(edit: KeepTokens, message: str) -> None:
    with pytest.raises(StageError) as caught:
        edit.apply(nn.ModuleDict({"words": nn.Embedding(12, 4), "other": nn.Linear(2, 2)}))
    assert caught.value.message == message


def test_a_corpus_that_uses_every_token(tiny_bert: Path, tmp_path: Path) -> None:
    source = hugging_face(tiny_bert)
    vocabulary = load_tokenizer(source.path).get_vocab()
    corpus = tmp_path / "all.txt"
    corpus.write_text("\n".join(word for word in vocabulary if word[0] not in "#["))
    with pytest.raises(StageError) as caught:
        trimmed(source, corpus, tmp_path / "out")
    assert caught.value.message == (
        f"prune: all {len(vocabulary)} tokens are used 1 times or more in the data, or needed."
    )


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({}, "data: is missing"),
        ({"data": "t.txt", "min_count": 0}, "min_count: Input should be greater than or equal to 1 (given: 0)"),
        ({"data": "t.txt", "ratio": 0.5}, "ratio: unknown key. Allowed: data, keep_tokens, min_count, samples, unit."),
    ],
)
def test_mistakes_in_the_config(config: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        PruneTokens.from_data(config, "pass 1")
    assert caught.value.message == f"pass 1 has 1 mistake:\n  - {line}"
