"""How fast a language model reads prompts and writes tokens, over several processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.core.model_spec import LanguageSpec
from pipeline.core.report_types import DecodingResult, ReadTime
from pipeline.core.types import Evidence, Figure, Json
from pipeline.devices.memory import extremes
from pipeline.devices.runner import LOAD_SECONDS, Runner
from pipeline.devices.worker import Decoding, Language, Subject

PROMPTS = (16, 128, 512)
"""Tokens of the prompts that are timed."""
_SHORT = 128
"""Tokens of a short text."""
_SECONDS = 600.0


def cache_of(language: LanguageSpec) -> Language:
    """The cache as the measuring program knows it."""
    sizes = language.heads, language.size, language.longest
    return Language(*sizes, language.inputs, language.outputs, language.cache)


def measure_decoding(
    runner: Runner, subject: Subject, language: Language, prompt: int, processes: int = 3
) -> DecodingResult:
    """Times of prompts (also of `prompt` tokens) and of single tokens behind a short text and at the context's end: of
    each the median over fresh processes, and their extremes as the interval."""
    request = decoding_request(subject, language, prompt)
    results = [runner.run(request, LOAD_SECONDS + _SECONDS) for _ in range(processes)]
    return decoding_result(request, results, runner.evidence)


def decoding_request(subject: Subject, language: Language, prompt: int) -> Decoding:
    """What each process times."""
    prompts = sorted({tokens for tokens in (*PROMPTS, prompt) if tokens < language.longest})
    places = sorted({min(_SHORT, language.longest - 1), language.longest - 1})
    return Decoding(subjects=(subject,), language=language, prompts=prompts, places=places)


def decoding_result(request: Decoding, results: Sequence[Mapping[str, Json]], evidence: Evidence) -> DecodingResult:
    """The report's record of what the worker's `decoding` told in several processes."""
    language = request.language

    def times(name: str, number: int) -> Sequence[Sequence[float]]:
        return [result[name][number] for result in results]

    def quantile(of: Sequence[Sequence[float]], q: float) -> Figure:
        return extremes([float(np.quantile(ms, q)) for ms in of], "ms", evidence)

    def rate(of: Sequence[Sequence[float]]) -> Figure:
        return per_second(quantile(of, 0.5))

    return DecodingResult(
        prompts=tuple(
            ReadTime(tokens=tokens, p50=quantile(times("prompts", at), 0.5), p95=quantile(times("prompts", at), 0.95))
            for at, tokens in enumerate(request.prompts)
        ),
        rates={place + 1: rate(times("places", at)) for at, place in enumerate(request.places)},
        cache_bytes_per_token=np.dtype(language.dtype).itemsize * len(language.past) * language.heads * language.size,
    )


def per_second(ms: Figure) -> Figure:
    """How often something happens that takes so long; the ends of the interval and of the doubt change places. An end
    at no time at all is taken for a tenth of the time."""

    def times(value: float | None) -> float | None:
        return None if value is None else 1e3 / max(value, ms.value / 10)

    doubt = ms.doubt and ms.doubt.model_copy(update={"low": times(ms.doubt.high), "high": times(ms.doubt.low)})
    changed = {"value": times(ms.value), "low": times(ms.high), "high": times(ms.low), "doubt": doubt}
    return ms.model_copy(update={"unit": "tokens/s", **changed})
