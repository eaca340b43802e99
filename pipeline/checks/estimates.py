"""What a bundle would take on its target's device, for budgets that no measurement here can decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pipeline.checks.weights import Weight
from pipeline.config.target import Target
from pipeline.core.model_spec import LanguageSpec
from pipeline.core.types import Doubt, Evidence, Figure, Scheme
from pipeline.forecast.latency import LatencyEstimate, OutOfRange, estimate_latency, slowest_calls_ms, unknown_core
from pipeline.forecast.power import PowerEstimate, estimate_power
from pipeline.forecast.rates import SHORT, Range, rates_of
from pipeline.forecast.work import Work
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.operators import TABLES

ON_DEVICE = "edge check BUNDLE --runner ssh:USER@BOARD, or --device-report FILE"
_OF_TEXTS = ("ttft_p95_ms", "min_tokens_per_s")
Estimates: TypeAlias = Mapping[str, Figure | OutOfRange]
"""By the name of the budget."""


def estimates_of(
    work: Work, weights: Sequence[Weight], language: LanguageSpec | None, scheme: Scheme, target: Target
) -> Estimates:
    """Latency and power from the work of one inference; of a language model, how fast it reads and writes, from its
    weights."""
    if language is not None:
        return _of_texts(work, weights, language, scheme, target)
    return _of_inference(work, 1e6 * sum(weight.megabytes for weight in weights), target)


def _of_inference(work: Work, weight_bytes: float, target: Target) -> Estimates:
    found = estimate_latency(work, target)
    if isinstance(found, OutOfRange):
        return dict.fromkeys(("latency_p50_ms", "latency_p95_ms", "max_power_w"), found)
    return {
        "latency_p50_ms": _figure(found.p50, "ms", found.said_by),
        "latency_p95_ms": _figure(found.p95, "ms", found.said_by),
        "max_power_w": _power(work, weight_bytes, found, target),
    }


def _power(work: Work, weight_bytes: float, latency: LatencyEstimate, target: Target) -> Figure | OutOfRange:
    if reason := unknown_core(target.device):
        return OutOfRange(reason)
    power = estimate_power(work, weight_bytes, latency, target)
    return _figure(power.watts, "W", _power_said_by(power), "measure the device's supply while it runs")


def _power_said_by(power: PowerEstimate) -> str:
    rate = "back to back" if power.per_second is None else f"{power.per_second:g} times a second"
    joules = power.joules
    return (
        f"not validated by measurements; {rate}, at {1e3 * joules.typical:.3g} mJ each ({1e3 * joules.low:.3g} to "
        f"{1e3 * joules.high:.3g}): the estimated time on busy cores, and bytes from memory"
    )


def _of_texts(
    work: Work, weights: Sequence[Weight], language: LanguageSpec, scheme: Scheme, target: Target
) -> Estimates:
    """As `edge plan` forecasts them, from the weights that the bundle stores; the worse ends have the calls of
    operators too, which count in small models, and of which there are none in the published rows."""
    rates, formats = rates_of(target), SchemeFormats(scheme)
    integer = formats.classes["linear"].integer_products
    head = _head(weights, language.vocabulary)
    products = [weight for weight in weights if weight.op_type not in TABLES and weight is not head]
    read = 1e6 * sum(weight.megabytes for weight in (*products, *([head] if head else [])))
    if not read:
        return dict.fromkeys(_OF_TEXTS, OutOfRange("no product of the model has weights, which limit its speed"))
    tokens = min(target.shape.context_length, language.longest)
    queries = language.layers * language.queries * language.size
    widened = not integer and scheme.weights <= 8
    short, full = (
        rates.tokens_per_s(read, queries * max(0, length - SHORT), widened) for length in (min(SHORT, tokens), tokens)
    )
    multiplied = sum(weight.values for weight in products) * target.shape.sequence_length
    first, calls = rates.first_token_ms(multiplied, integer, short), slowest_calls_ms(work)
    return {
        "ttft_p95_ms": _figure(first.model_copy(update={"high": first.high + 2 * calls}), "ms", rates.said_by),
        "min_tokens_per_s": _figure(
            full.model_copy(update={"low": 1 / (1 / full.low + calls / 1e3)}), "tokens/s", rates.said_by
        ),
    }


def _head(weights: Sequence[Weight], vocabulary: int) -> Weight | None:
    """The weight that makes the logits; a shared table belongs to the operator that looks its rows up."""
    wide = [weight for weight in weights if vocabulary in weight.dims]
    return min(wide, key=lambda weight: weight.op_type in TABLES, default=None)


def _figure(found: Range, unit: str, said_by: str, remedy: str = f"measure it on the device: {ON_DEVICE}") -> Figure:
    doubt = Doubt(low=found.low, high=found.high, why=said_by, remedy=remedy)
    return Figure(
        value=found.typical,
        unit=unit,
        evidence=Evidence.ESTIMATED,
        low=found.low,
        high=found.high,
        note=f"estimated; {said_by}",
        doubt=doubt,
    )
