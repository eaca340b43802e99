"""The small language model in EDGE_DATA: its texts without the held-out ones, its perplexity, and passes run on it."""

from __future__ import annotations

import json
import math
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from benchmarks.data import folder
from pipeline.compress import PREVIOUS_PASS
from pipeline.compress.compressed_model import Compressed, load_compressed
from pipeline.compress.passes import PassConfig
from pipeline.core.artifact import Artifact
from pipeline.core.model_spec import ModelSpec
from pipeline.core.registry import load_attribute
from pipeline.core.silence import silence_output
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import Scheme, silent
from pipeline.data.samples import write_samples
from pipeline.source.torch_model import load_source

LENGTH = 256
"""Tokens of a window, for perplexity and calibration alike."""
_CHUNK = 2000  # characters of a document cut from running text, as the held-out ones are
_BATCH = 32


def source() -> ModelSpec:
    """The model as stage functions get it."""
    return ModelSpec(
        **{"kind": "huggingface", "name": "tinylm", "digest": "", "path": _place()},
        **{"task": "text-generation", "auto_class": "AutoModelForCausalLM", "data": "text", "output": "logits"},
        family="tokens",
    )


def load() -> nn.Module:
    """The float32 model, fresh: 5,475,584 parameters, of which the tied embedding has 1,048,576."""
    with silence_output():
        return load_source(source())


def held_out() -> list[str]:
    """The validation documents."""
    return list(json.loads((_place() / "tinylm_val.json").read_text(encoding="utf-8"))["docs"])


def documents() -> list[str]:
    """What the model was trained on, in a fixed random order, without the held-out documents. The texts that calibrate
    and train are the first ones of these."""
    text = folder() / "text"
    found = [*_reviews(text), *_sentences(text), *_problems(text), *_plays(text)]
    unseen = set(held_out())
    kept = [document for document in dict.fromkeys(found) if document not in unseen]
    order = np.random.default_rng(0).permutation(len(kept))
    return [kept[index] for index in order]


def windows(texts: list[str]) -> Tensor:
    """int64 [windows, LENGTH]: every text as `<s>text</s>`, all in a row, cut; the rest that fills no window goes."""
    tokenizer = AutoTokenizer.from_pretrained(_place())
    begin, end = tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    flat = torch.tensor([token for ids in encoded for token in (begin, *ids, end)])
    return flat[: len(flat) // LENGTH * LENGTH].view(-1, LENGTH)


@cache
def calibration(count: int) -> Tensor:
    """int64 [count, LENGTH] of the training texts."""
    # a text has a hundred tokens or so, and all of them take seconds to encode
    found = windows(documents()[: count * 12])
    if len(found) < count:
        raise ValueError(f"the texts fill {len(found)} windows, {count} were asked for")
    return found[:count]


@cache
def _held_out_windows() -> Tensor:
    return windows(held_out())


@torch.inference_mode()
def perplexity(model: nn.Module) -> float:
    """exp of the mean loss per predicted token over the held-out windows; float32 gives 28.7."""
    total, count = 0.0, 0
    for batch in _held_out_windows().split(_BATCH):
        logits = model(input_ids=batch).logits[:, :-1].flatten(0, 1)
        total += float(nn.functional.cross_entropy(logits, batch[:, 1:].flatten(), reduction="sum"))
        count += batch[:, 1:].numel()
    return math.exp(total / count)


def compressed(*passes: PassConfig, windows_to_see: int = 128) -> tuple[Compressed, list[dict[str, Any]]]:
    """The model after `passes`, which see that many calibration windows, and the facts of each."""
    with tempfile.TemporaryDirectory() as scratch, silence_output():
        place = Path(scratch)
        (place / "samples").mkdir()
        write_samples(place / "samples", map(_row, calibration(windows_to_see)))
        inputs = {"calibration": Artifact(place / "samples", "samples.calibration", "", "", {})}
        facts = []
        for number, config in enumerate(passes):
            out = place / str(number)
            out.mkdir()
            facts.append(_run(config, inputs, out))
            inputs = {**inputs, PREVIOUS_PASS: Artifact(out, "compress", "", "", {})}
        return load_compressed(source(), inputs), facts


def _run(config: PassConfig, inputs: dict[str, Artifact], out: Path) -> dict[str, Any]:
    values = {
        "pass": config.model_dump(mode="json"),
        "scheme": Scheme(name="fp32").model_dump(mode="json"),
        "limits": {},
    }
    run = load_attribute(config.run)
    return dict(run(StageContext(values, inputs, out, silent, models={MODEL: source()})))


def _row(tokens: Tensor) -> dict[str, Any]:
    ids = tokens[None].numpy()
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _place() -> Path:
    return folder() / "weights" / "tinylm"


def _reviews(text: Path) -> list[str]:
    return [row["text"].replace("<br />", "\n") for row in _json_lines(text / "imdb/train.jsonl")]


def _sentences(text: Path) -> list[str]:
    with (text / "sst2/train.tsv").open(encoding="utf-8") as lines:
        return [line.rsplit("\t", 1)[0] for line in lines]


def _problems(text: Path) -> list[str]:
    rows = _json_lines(text / "gsm8k/train.jsonl")
    return [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows]


def _plays(text: Path) -> list[str]:
    play = (text / "tinyshakespeare/input.txt").read_text(encoding="utf-8")
    return [play[begin : begin + _CHUNK] for begin in range(0, len(play), _CHUNK)]


def _json_lines(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:  # not splitlines, which splits at the U+2028 inside a text too
        return [json.loads(line) for line in lines]
