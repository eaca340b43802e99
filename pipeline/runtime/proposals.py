"""Texts that a model writes, always the most likely token, with few passes over its weights: another model proposes how
texts go on, and one pass tells which of its tokens the first would have written (speculative decoding without sampling:
Leviathan et al., arXiv 2211.17192, sec. 2; Stern et al., arXiv 1811.03115, sec. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.core.model_spec import LanguageSpec
from pipeline.core.types import Progress, silent

AHEAD = 16
"""Tokens that are proposed behind the text that has come furthest. Proposals cost too, and those behind a wrong one are
lost."""

Propose = Callable[[Sequence[int], int], Sequence[int]]
"""A text, and a number of tokens -> as many tokens behind it."""


def confirmed(
    session: ort.InferenceSession,
    language: LanguageSpec,
    prompts: Sequence[Sequence[int]],
    count: int,
    propose: Propose,
    progress: Progress = silent,
) -> list[list[int]]:
    """`count` tokens that the session's model writes behind each prompt, whatever is proposed; fewer where the context
    ends."""
    texts = [_Text(list(prompt), min(count, language.longest + 1 - len(prompt))) for prompt in prompts]
    for alike in _of_one_length(texts):
        while unfinished := [text for text in alike if len(text.written) < text.count]:
            _go_on(session, language, unfinished, propose)
            progress(sum(len(text.written) for text in texts), sum(text.count for text in texts))
    return [text.written for text in texts]


@dataclass(frozen=True)
class _Text:
    """What was given, how many tokens are wanted behind it, and those that are there."""

    prompt: list[int]
    count: int
    written: list[int] = field(default_factory=list)


def _of_one_length(texts: Sequence[_Text]) -> list[list[_Text]]:
    """Those whose prompts are of one length can run together without padding."""
    lengths = sorted({len(text.prompt) for text in texts})
    return [[text for text in texts if len(text.prompt) == length] for length in lengths]


def _go_on(session: ort.InferenceSession, language: LanguageSpec, texts: Sequence[_Text], propose: Propose) -> None:
    """Append what the model writes: proposed tokens up to the first that is not its own, and that one in its place."""
    end = min(texts[0].count, max(len(text.written) for text in texts) + AHEAD)
    so_far = [[*text.prompt, *text.written] for text in texts]
    proposed = [list(propose(ids, end - len(text.written))) for ids, text in zip(so_far, texts, strict=True)]
    ids = np.array([[*before, *behind] for before, behind in zip(so_far, proposed, strict=True)], np.int64)
    chosen = _chosen(session, language, ids[:, :-1])
    for text, row, before, behind in zip(texts, chosen, so_far, proposed, strict=True):
        own = row[len(before) - 1 :].tolist()
        same = next((place for place, pair in enumerate(zip(own, behind, strict=True)) if pair[0] != pair[1]), len(own))
        text.written.extend(own[: same + 1])


def _chosen(session: ort.InferenceSession, language: LanguageSpec, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most likely token behind each, int64 [texts, tokens]. Texts are read from their beginnings: ONNX Runtime's
    attention takes several tokens behind a cache of one text alone."""
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), **language.empty(len(ids))}
    found: NDArray[np.int64] = session.run(["logits"], feed)[0].argmax(axis=-1)
    return found
