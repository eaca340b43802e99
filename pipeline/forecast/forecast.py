"""Size, memory, first token and tokens per second of a language model on a target, for every scheme."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from pipeline.config.target import Target
from pipeline.core.types import Scheme, StrictModel
from pipeline.forecast.rates import SHORT, Range, Rates, rates_of
from pipeline.forecast.shapes import ModelShapes
from pipeline.formats import NUMBER_FORMATS
from pipeline.formats.format import NumberFormat
from pipeline.formats.scheme import SchemeFormats, block_format_name

Verdict = Literal["fits", "unsure", "does not fit"]
_TOKENIZER_BYTES = 70
"""Of tokenizer.json for each token: 64 to 75 of the vocabularies of the small Llama, Llama 3 and Qwen 3."""
_INLINE = 2_000_000_000
"""Bytes of weights up to which a graph's file holds them itself (protobuf's limit)."""
_PACKED = 1.5
"""Memory of products for each byte of their weights, which ONNX Runtime packs anew when it loads them: 1.61 of 4 bits,
1.36 of 8 (measured on x86-64, ONNX Runtime 1.32); their file, if it is not mapped, comes on top."""
_SESSION_MB = (1.0, 4.0, 10.0)
"""Of a session without weights."""
_MEMORY_ENDS = (0.7, 1.0, 1.25)
"""Of the predicted memory: kernels of other instruction sets pack otherwise."""


class BudgetForecast(StrictModel):
    """`figure`: in the budget's unit."""

    metric: str
    limit: float
    required: bool
    figure: Range
    verdict: Verdict


class SchemeForecast(StrictModel):
    """`bits`: of a stored parameter, with its share of scales. `tokens_per_s` with up to 512 tokens before,
    `tokens_per_s_full` at the end of the context. `devices`: how many hold the stored weights between
    them."""

    scheme: str
    bits: float
    bundle_mb: float
    memory_mb: Range
    ttft_ms: Range
    tokens_per_s: Range
    tokens_per_s_full: Range
    devices: int
    budgets: tuple[BudgetForecast, ...]
    verdict: Verdict


class Forecast(StrictModel):
    """`parameters_read`: those that one token needs. `largest_fitting`: parameters of the largest model, in the scheme
    with the fewest bits, whose weights the memory budget holds."""

    model: str
    target: str
    parameters: int
    parameters_read: int
    context: int
    prompt: int
    cache_bytes_per_token: int
    device_memory_mb: float
    schemes: tuple[SchemeForecast, ...]
    largest_fitting: int
    notes: tuple[str, ...]
    verdict: Verdict


def forecast(
    name: str, shapes: ModelShapes, target: Target, schemes: dict[str, Scheme], context: int, device_memory_mb: float
) -> Forecast:
    """Of the model `name` with all of `schemes`. `target`: as it is for language models; `context`: tokens of a text at
    most; `device_memory_mb`: of one device, for how many it would take."""
    rates = rates_of(target)
    found = tuple(_of_scheme(shapes, target, scheme, context, device_memory_mb, rates) for scheme in schemes.values())
    verdicts = [each.verdict for each in found]
    return Forecast(
        model=name,
        target=target.name,
        parameters=shapes.parameters,
        parameters_read=int(shapes.multiplied + _head_size(shapes)),
        context=context,
        prompt=target.shape.sequence_length,
        cache_bytes_per_token=max(_cache_bytes(shapes, scheme) for scheme in schemes.values()),
        device_memory_mb=device_memory_mb,
        schemes=found,
        largest_fitting=_largest(target, min(found, key=lambda each: each.bits)),
        notes=(rates.said_by, *_notes(shapes)),
        verdict="fits" if "fits" in verdicts else "unsure" if "unsure" in verdicts else "does not fit",
    )


def _head_size(shapes: ModelShapes) -> int:
    """Parameters of the product that makes the logits."""
    return sum(count * weight.dims[0] * weight.dims[1] for weight, count in shapes.weights.items() if weight.head)


def _notes(shapes: ModelShapes) -> Iterator[str]:
    if shapes.experts:
        yield (
            "Each token is sent to some of several experts: those count for speed, all of them for size. Such models "
            "are not exported yet."
        )
    if shapes.senses:
        yield "The parts for images and sound are not counted: figures are of the language part."
    if shapes.others:
        yield (
            f"{shapes.others} layers keep other states than keys and values, which are not counted. Such models are "
            "not exported yet."
        )


def _of_scheme(
    shapes: ModelShapes, target: Target, scheme: Scheme, context: int, device_memory_mb: float, rates: Rates
) -> SchemeForecast:
    formats = SchemeFormats(scheme)
    stored, loaded, read = _bytes(shapes, formats)
    integer = formats.classes["linear"].integer_products
    bundle = (stored + _TOKENIZER_BYTES * shapes.vocabulary) / 1e6
    memory = _memory(shapes, target, stored, loaded, _cache_bytes(shapes, scheme) * context)
    widened = not integer and scheme.weights <= 8
    short, full = (rates.tokens_per_s(read, _attended(shapes, tokens), widened) for tokens in (SHORT, context))
    ttft = rates.first_token_ms(shapes.multiplied * target.shape.sequence_length, integer, short)
    budgets = tuple(_budgets(target, bundle, memory, ttft, full))
    return SchemeForecast(
        scheme=scheme.name,
        bits=8 * stored / shapes.parameters,
        bundle_mb=bundle,
        memory_mb=memory,
        ttft_ms=ttft,
        tokens_per_s=short,
        tokens_per_s_full=full,
        devices=math.ceil(stored / 1e6 / device_memory_mb),
        budgets=budgets,
        verdict=_together([budget.verdict for budget in budgets if budget.required]),
    )


def _bytes(shapes: ModelShapes, formats: SchemeFormats) -> tuple[float, float, float]:
    """Of the weights: stored, in memory, and read for each token."""
    head = _head_format(formats)
    stored = loaded = read = 4.0 * shapes.floats
    for weight, count in shapes.weights.items():
        form = head if weight.head else formats.classes[weight.op]
        if weight.op == "table" and shapes.tied and head.lends_rows(form, weight.dims):
            continue
        values = count * weight.dims[0] * weight.dims[1]
        stored += values * form.bits(weight.op, weight.dims) / 8
        loaded += values * form.loaded_bits(weight.op, weight.dims) / 8
        read += 0 if weight.op == "table" else values * weight.read * form.loaded_bits(weight.op, weight.dims) / 8
    return stored, loaded, read


def _head_format(formats: SchemeFormats) -> NumberFormat:
    bits = formats.scheme.head
    return formats.classes["linear"] if bits is None else NUMBER_FORMATS.get(block_format_name(bits))(formats.scheme)


def _cache_bytes(shapes: ModelShapes, scheme: Scheme) -> int:
    """Keys and values of one token."""
    return scheme.cache // 8 * sum(layer.cached for layer in shapes.attention)


def _memory(shapes: ModelShapes, target: Target, stored: float, loaded: float, cache: int) -> Range:
    """At most, in MB: weights with what ONNX Runtime packs of them, the `cache` bytes of a full context (once where its
    buffers are shared, twice where past and present are apart), and what a prompt leaves behind."""
    file = stored if target.bundle.layout != "mapped" and stored < _INLINE else 0
    prompt = 4 * target.shape.sequence_length * (shapes.vocabulary + 8 * shapes.hidden)
    low, typical, high = (
        ((file + _PACKED * loaded) * end + buffers * cache + prompt) / 1e6 + session
        for end, buffers, session in zip(_MEMORY_ENDS, (1, 2, 2), _SESSION_MB, strict=True)
    )
    return Range(low=low, typical=typical, high=high)


def _attended(shapes: ModelShapes, tokens: int) -> int:
    """Values of queries times the tokens before that each meets, beyond those that rates are fitted at."""
    return sum(layer.queries * max(0, min(tokens, layer.window or tokens) - SHORT) for layer in shapes.attention)


def _budgets(target: Target, bundle: float, memory: Range, ttft: Range, tokens: Range) -> Iterator[BudgetForecast]:
    exact = Range(low=bundle, typical=bundle, high=bundle)
    figures = {"bundle_mb": exact, "peak_memory_mb": memory, "ttft_p95_ms": ttft, "min_tokens_per_s": tokens}
    for metric, figure in figures.items():
        if (budget := target.budgets.get(metric)) is not None:
            more = metric == "min_tokens_per_s"
            worst, best = (figure.low, figure.high) if more else (-figure.high, -figure.low)
            limit = budget.limit if more else -budget.limit
            verdict: Verdict = "fits" if worst >= limit else "does not fit" if best < limit else "unsure"
            yield BudgetForecast(
                metric=metric, limit=budget.limit, required=budget.required, figure=figure, verdict=verdict
            )


def _together(verdicts: list[Verdict]) -> Verdict:
    return "does not fit" if "does not fit" in verdicts else "unsure" if "unsure" in verdicts else "fits"


def _largest(target: Target, smallest: SchemeForecast) -> int:
    """Parameters in the fewest bits that the budget of the bundle, or else the memory, holds."""
    budget = target.budgets.get("bundle_mb") or target.budgets.get("peak_memory_mb")
    megabytes = budget.limit if budget else target.device.memory_mb
    return int(megabytes * 1e6 * 8 / smallest.bits)
