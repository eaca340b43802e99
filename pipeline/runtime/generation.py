"""Texts written by a language model's graph, token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import LanguageSpec
from pipeline.devices.decoding import cache_of
from pipeline.devices.worker import Text, kept_dtypes
from pipeline.runtime.session import SESSION_ERRORS, refusal

Choose = Callable[[NDArray[np.float32]], int]
"""The next token, of logits [vocabulary]."""


class Continuation:
    """A text that a session of a language model's graph reads and writes."""

    def __init__(self, session: ort.InferenceSession, language: LanguageSpec) -> None:
        kept = kept_dtypes(session)[language.inputs[0]]  # which the float model's `language` does not say
        self._text = Text(session, cache_of(language.model_copy(update={"cache": kept})))
        self.longest, self.tokens = language.longest, 0

    def read(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens to the text; logits of the one behind them, float32 [vocabulary]. UsageError if the text gets
        longer than the context."""
        if self.tokens + len(ids) > self.longest:
            raise UsageError(
                f"The text has {self.tokens + len(ids)} tokens; the bundle's context is {self.longest}.",
                "Shorten the prompt, or export with a larger context_length (in the shape of the target's "
                "[tasks.text-generation]), if the model takes it.",
            )
        try:
            logits = self._text.read(ids, self.tokens)
        except SESSION_ERRORS as error:
            raise refusal("run the model on a text", error) from error
        self.tokens += len(ids)
        found: NDArray[np.float32] = logits[-1]
        return found


def written(
    session: ort.InferenceSession, language: LanguageSpec, prompt: Sequence[int], choose: Choose
) -> Iterator[int]:
    """Tokens behind `prompt` as they are chosen, up to one that ends the text, and while the context lasts."""
    text = Continuation(session, language)
    ids = list(prompt)
    while not text.tokens or text.tokens < text.longest:
        token = choose(text.read(ids))
        if token in language.ends:
            return
        yield token
        ids = [token]


def most_likely(logits: NDArray[np.float32]) -> int:
    return int(logits.argmax())


def sampled(temperature: float, top_p: float, seed: int) -> Choose:
    """Draws from the most likely tokens that have `top_p` of the probability together (Holtzman et al., arXiv
    1904.09751, sec. 3.1), of logits divided by `temperature`; the most likely one for 0."""
    if temperature == 0:
        return most_likely
    generator = np.random.default_rng(seed)

    def choose(logits: NDArray[np.float32]) -> int:
        order = np.argsort(-logits, kind="stable")
        scaled = logits[order].astype(np.float64) / temperature
        shares = np.exp(scaled - scaled[0])
        shares /= shares.sum()
        kept = min(int(np.searchsorted(np.cumsum(shares), top_p)) + 1, len(shares))  # their sum may be below 1
        return int(order[generator.choice(kept, p=shares[:kept] / shares[:kept].sum())])

    return choose
