"""Stage function: texts that a language model writes by itself, beside those that its float model writes.

A model can be given right texts and predict their tokens well, and still go round in circles when it reads its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.compress import PREVIOUS_PASS
from pipeline.core.model_spec import LanguageSpec
from pipeline.core.report_types import WrittenTexts
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Progress, share_of
from pipeline.data.samples import evaluation_folders, open_samples
from pipeline.graph.files import graphs_in
from pipeline.numerics.student_t import student_t_quantile
from pipeline.runtime.generation import most_likely, written
from pipeline.runtime.proposals import confirmed
from pipeline.runtime.session import are_large, parallel_float_session, parallel_session

_PROMPT, _WRITTEN = 16, 64
"""Tokens of each evaluation text that are given, and that are written behind them."""
_FEWEST = 8
_GRAM = 4

Texts = list[list[int]]


def run(context: StageContext) -> StageMetadata:
    """The metadata are the record `WrittenTexts`; nothing is written. It has no texts where the evaluation sets have
    none with a token."""
    language = context.model.language
    assert language is not None  # noqa: S101  # the plan has this stage for language models only
    prompts = _prompts(context.inputs["samples"].path, language, _count(context.config["tokens"]))
    traced = context.inputs.get(PREVIOUS_PASS)
    left = (context.model.after_passes(traced.metadata) if traced else context.model).language or language
    of_float, model = (graphs_in(context.inputs[role].path) for role in ("float", "model"))
    own = _Writer(parallel_session(model), left)
    half = share_of(context.progress, 1, 2)
    written_by_own = list(own.texts(prompts, share_of(context.progress, 0, 2)))
    if are_large(of_float):
        session = parallel_float_session(of_float)
        written_by_float = confirmed(session, language, prompts, _WRITTEN, own.tokens, half)
    else:
        written_by_float = list(_Writer(parallel_float_session(of_float), language).texts(prompts, half))
    return compared(written_by_float, written_by_own).model_dump(mode="json")


def compared(of_float: Texts, own: Texts) -> WrittenTexts:
    """What both models wrote behind the same prompts, always the most likely token."""
    same = [_same(one, other) for one, other in zip(of_float, own, strict=True)]
    differing = sorted(place for place, text in zip(same, of_float, strict=True) if place < len(text))
    repeated, before = _repeated(own), _repeated(of_float)
    return WrittenTexts(
        texts=len(own),
        tokens=max(map(len, own), default=0),
        same=float(np.mean([place / len(text) for place, text in zip(same, own, strict=True)])) if own else 0.0,
        first_difference=differing[len(differing) // 2] if differing else None,
        repeated=float(repeated.mean()) if own else 0.0,
        repeated_float=float(before.mean()) if own else 0.0,
        interval=_interval(repeated - before),
    )


def _count(tokens: int) -> int:
    """Of how many texts, for a model that reads so many tokens of an evaluation set. Token by token it takes about four
    times as long."""
    return max(_FEWEST, tokens // (16 * _WRITTEN))


def _prompts(evaluation: Path, language: LanguageSpec, count: int) -> Texts:
    """The beginnings of texts that are spread evenly over all sets, of the whole of short ones."""
    length = min(_PROMPT, language.longest // 2)
    found: Texts = []
    for folder in evaluation_folders(evaluation):
        samples = open_samples(folder)
        places = range(0, len(samples), max(1, len(samples) // count))
        found += [ids for place in places if (ids := samples[place]["input_ids"][0, :length].tolist())]
    return found[:: max(1, len(found) // count)][:count]


class _Writer:
    """A graph that writes behind what it is given, past tokens that would end a text."""

    def __init__(self, session: ort.InferenceSession, language: LanguageSpec) -> None:
        longest = min(language.longest, _PROMPT + _WRITTEN)
        self._session, self._language = session, language.model_copy(update={"ends": (), "longest": longest})

    def tokens(self, text: Sequence[int], count: int) -> list[int]:
        return list(islice(written(self._session, self._language, text, most_likely), count))

    def texts(self, prompts: Texts, progress: Progress) -> Iterator[list[int]]:
        for number, prompt in enumerate(prompts, start=1):
            yield self.tokens(prompt, _WRITTEN)
            progress(number, len(prompts))


def _same(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens are equal before the first that is not."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def _repeated(texts: Texts) -> NDArray[np.float64]:
    """Of each text the share of sequences of four tokens that it has had before: seq-rep-4 of Welleck et al., arXiv
    1908.04319, sec. 4."""
    grams = [[tuple(text[begin : begin + _GRAM]) for begin in range(len(text) - _GRAM + 1)] for text in texts]
    return np.array([1.0 - len(set(of_text)) / len(of_text) if of_text else 0.0 for of_text in grams])


def _interval(differences: NDArray[np.float64]) -> float | None:
    """Half of the 95 % confidence interval of their mean, by Student's t; None where there is no spread to tell it."""
    count = len(differences)
    if count < 2:
        return None
    return student_t_quantile(0.975, count - 1) * float(differences.std(ddof=1)) / count**0.5
