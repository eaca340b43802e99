"""The texts that a decoder is given while it is calibrated and judged: labels, what the float model itself says, or
those of a language model, whose own tokens it is to predict.

Rows get `decoder_input_ids` int64 [1, tokens]: the start token and the text without its last token, so that the
decoder's answers are the text's tokens, one place earlier (teacher forcing).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import DecoderSpec, ModelSpec
from pipeline.data.datasets import Dataset
from pipeline.data.samples import Row
from pipeline.tasks.language_model import LanguageHead, next_tokens
from pipeline.tasks.next_tokens import DECODER_INPUTS

_TOGETHER = 16
"""Samples that the float model answers at once."""
_SHORTEST = 2
_LONGEST = 64
"""Tokens of an answer of the float model: enough to judge by, and each costs a run of the decoder."""


def labelled(
    rows: Iterator[Row], texts: Sequence[str], tokenizer: Any, decoder: DecoderSpec, most: int
) -> Iterator[tuple[Row, list[int]]]:
    """Each row with the decoder's inputs for its text, and the tokens of the text; at most `most`."""
    for place, (row, text) in enumerate(zip(rows, texts, strict=True), start=1):
        ids = tokenizer(text_target=text, truncation=True, max_length=most)["input_ids"]
        ids = ids[1:] if ids[:1] == [decoder.start] else ids  # Whisper's tokenizer writes the start token itself
        if not ids:
            raise UsageError(
                f"The text that sample {place} is labelled with has no tokens.",
                "Write what the model should say, or leave the labels out.",
            )
        yield row | {DECODER_INPUTS: np.array([[decoder.start, *ids[:-1]]], np.int64)}, ids


def continued(rows: Iterator[Row], spec: ModelSpec) -> Iterator[tuple[Row, list[int]]]:
    """Texts behind an empty cache, and the tokens that come next in them where they are judged. Texts of one token have
    none, and are left out; UsageError if all are."""
    language, every, found = spec.language, LanguageHead.model_validate(spec.head).every, False
    assert language is not None  # noqa: S101  # who calls this asked
    for row in rows:
        ids = row["input_ids"]
        if ids.shape[1] >= _SHORTEST:
            found = True
            given = {"input_ids": ids, "attention_mask": np.ones_like(ids), **language.empty()}
            yield given, next_tokens(ids[0], every)
    if not found:
        raise UsageError("No text has two tokens or more: there is no next one to predict.", "Give longer texts.")


def up_to(rows: Iterator[Row], tokens: int) -> Iterator[Row]:
    """The first rows, as many as have so many tokens together."""
    total = 0
    for row in rows:
        yield row
        total += row["input_ids"].shape[1]
        if total >= tokens:
            return


def readable(texts: Iterable[str], tokenizer: Any) -> Iterator[str]:
    """Those of the texts that `continued` does not leave out."""
    return (text for text in texts if len(tokenizer(text, verbose=False)["input_ids"]) >= _SHORTEST)


def unread(dataset: Dataset, count: int, tokens: int) -> str:
    """Says how many texts a language model is judged on, if that is not all."""
    if count == len(dataset.samples):
        return ""
    return (
        f"{count} of the {len(dataset.samples)} texts of {dataset.name!r} are read: the first ones, up to {tokens:,} "
        "tokens, of two tokens or more."
    )


def cut_labels(dataset: Dataset, tokenizer: Any, most: int) -> str:
    """Says how many texts that the decoder should say are longer than it is given; empty if none is."""
    labels = dataset.labels or ()
    cut = sum(len(tokenizer(text_target=text, verbose=False)["input_ids"]) > most for text in labels)
    if not cut:
        return ""
    return (
        f"{cut} of the {len(labels)} texts that {dataset.name!r} is labelled with are cut to {most} tokens: what "
        "stands behind is not scored."
    )


def generated(rows: Iterator[Row], spec: ModelSpec, most: int) -> Iterator[Row]:
    """Each row with the decoder's inputs for what the float model says to it, always the most likely token next. Rows
    that have them keep them. At most `most` tokens."""
    from pipeline.source.torch_model import load_source  # noqa: PLC0415  # torch takes seconds to import

    model = None
    while together := list(islice(rows, _TOGETHER)):
        given = [row for row in together if DECODER_INPUTS not in row]
        if given and model is None:
            model = load_source(spec)
        said = _answers(model, given, spec, most) if given else iter(())
        for row in together:
            _require_length(row, spec.decoder)
            yield row if DECODER_INPUTS in row else row | {DECODER_INPUTS: next(said)}


def _require_length(row: Row, decoder: DecoderSpec | None) -> None:
    given = row[DECODER_INPUTS].shape[1] if DECODER_INPUTS in row else 0
    if decoder is not None and decoder.longest is not None and given > decoder.longest:
        raise UsageError(
            f"A sample has {given} {DECODER_INPUTS}; the decoder takes {decoder.longest} (config.json).", "Cut them."
        )


def _answers(model: Any, rows: Sequence[Row], spec: ModelSpec, most: int) -> Iterator[NDArray[np.int64]]:
    """int64 [1, tokens] for each row: the start token and the answer, without its end."""
    import torch  # noqa: PLC0415  # as above
    from transformers import GenerationMixin  # noqa: PLC0415  # as above

    assert spec.decoder is not None  # noqa: S101  # who calls this asked
    names = [name for name in rows[0] if name in inspect.signature(model.forward).parameters]
    fills = {"input_ids": spec.decoder.pad or 0}
    inputs = {name: torch.from_numpy(_stacked([row[name] for row in rows], fills.get(name, 0))) for name in names}
    limit = max(1, min(most, _LONGEST) - 1)
    with torch.inference_mode():  # not Whisper's own `generate`, which splits recordings and forces prompts
        found = GenerationMixin.generate(model, **inputs, do_sample=False, num_beams=1, max_new_tokens=limit).numpy()
    end = model.generation_config.eos_token_id
    ends = set(end) if isinstance(end, list) else {end}
    for answer in found:
        yield answer[None, : _length(answer.tolist(), ends)].astype(np.int64)


def _length(answer: list[int], ends: set[int | None]) -> int:
    """Up to the first token that ends the text, which the decoder is to choose; the start token may be the same."""
    return next((place for place, token in enumerate(answer) if place and token in ends), len(answer))


def _stacked(arrays: Sequence[NDArray[Any]], fill: int) -> NDArray[Any]:
    """One batch, padded at the end of the second axis."""
    longest = max(array.shape[1] for array in arrays)
    widths = [[(0, 0), (0, longest - array.shape[1]), *[(0, 0)] * (array.ndim - 2)] for array in arrays]
    return np.concatenate([np.pad(a, width, constant_values=fill) for a, width in zip(arrays, widths, strict=True)])
