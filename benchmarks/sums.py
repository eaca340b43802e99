"""A small language model that adds, and what lower precision leaves of it: perplexity beside exact match.

Trained from nothing (a few CPU minutes, kept in the store) on `Question: 17+25` and `Answer: 17+25 #### 42`.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.row import Measured, Row
from pipeline import export
from pipeline.core.report_types import Report
from pipeline.core.store import default_store

_CHARACTERS = "0123456789+:# \nAQnestiowr"
_PAD, _END = "<pad>", "<eos>"
_STEPS, _BATCH, _RATE = 1200, 32, 2e-3
_ASKED = 300
_TWO_BITS = """
title = "2-bit blocks of 64, tables and output too"

[scheme]
base = "w4a8"
weights = 2
head = 2
embeddings = 2
block_size = 64
symmetric = false
"""


def problems(seed: int) -> Iterator[tuple[str, str]]:
    """Questions and answers without end."""
    draw = random.Random(seed)  # noqa: S311  # no secret
    while True:
        one, other = draw.randrange(50), draw.randrange(50)
        yield f"{one}+{other}", f"{one}+{other} #### {one + other}"


@cache
def trained() -> Path:
    """The model's folder."""
    place = default_store() / "benchmarks" / "sums"
    if not (place / "model.safetensors").is_file():
        tokenizer = _tokenizer()
        tokenizer.save_pretrained(place)
        _train(tokenizer).save_pretrained(place)
    return place


def _tokenizer() -> PreTrainedTokenizerFast:
    """A token for each character."""
    words = {word: number for number, word in enumerate((_PAD, _END, *_CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=_PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END)


def _train(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
    )
    model, drawn = LlamaForCausalLM(config), problems(1)
    optimizer = torch.optim.AdamW(model.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, _STEPS)
    for _ in range(_STEPS):
        texts = [f"Question: {question}\nAnswer: {answer}{_END}" for question, answer in _some(drawn, _BATCH)]
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def _some(drawn: Iterator[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    return [next(drawn) for _ in range(count)]


@cache
def _report(recipe: str) -> Report:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        two_bits = place / "two-bits.toml"
        two_bits.write_text(_TWO_BITS, encoding="utf-8")
        return export(
            str(trained()),
            "phone",
            recipe=str(two_bits) if recipe == two_bits.stem else recipe,
            calibration_data=str(_written(place / "calibration.jsonl", 3)),
            eval_data=(str(_written(place / "sums.jsonl", 2)),),
            output=str(place / "out"),
        ).report


def _written(path: Path, seed: int) -> Path:
    rows = [{"question": question, "answer": answer} for question, answer in _some(problems(seed), _ASKED)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def lost(recipe: str) -> Measured:
    """Problems of a hundred that float solves and the bundle does not, net; beside those that float solves."""
    (found,) = _report(recipe).exact_match
    return Measured(found.drop, 100.0 * found.right_float / found.problems)


def perplexity_increase(recipe: str) -> Measured:
    """Percent, beside float's."""
    (found,) = _report(recipe).accuracy
    before = found.scores["perplexity_float"]
    return Measured(100.0 * (found.scores["perplexity"] / before - 1.0), before)


def _rows(name: str, recipe: str) -> list[Row]:
    return [
        Row(f"sums.{name}.exact_match_drop", "points", "float's problems solved, %", partial(lost, recipe)),
        Row(f"sums.{name}.perplexity_increase", "%", "float's perplexity", partial(perplexity_increase, recipe)),
    ]


ROWS = [*_rows("w4", "w4a8-language"), *_rows("w2", "two-bits")]
