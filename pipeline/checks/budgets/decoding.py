"""Budgets on how fast a language model reads and writes."""

from __future__ import annotations

from pipeline.checks.budgets.metric import Absent, Metric, Outcome, estimated, not_there
from pipeline.checks.measurements import Measurements


def _absent(found: Measurements) -> Absent:
    if not found.writes_texts:
        return Absent("it does not apply to a model that writes no texts", applies=False)
    return not_there(found, "times")


def _first(found: Measurements) -> Outcome:
    return estimated("ttft_p95_ms", _first_measured(found), found)


def _first_measured(found: Measurements) -> Outcome:
    decoding, tokens = found.records.decoding, found.case.target.shape.sequence_length
    if decoding is None:
        return _absent(found)
    read = [prompt for prompt in decoding.prompts if prompt.tokens == tokens]
    return read[0].p95 if read else Absent(f"a prompt of {tokens} tokens does not fit into the context")


def _rate(found: Measurements) -> Outcome:
    decoding = found.records.decoding
    measured = _absent(found) if decoding is None else min(decoding.rates.values(), key=lambda figure: figure.value)
    return estimated("min_tokens_per_s", measured, found)


FIRST = Metric("ms", "at most", "95th percentile of the time to the first token of an answer", _first)
RATE = Metric(
    "tokens/s", "at least", "tokens written per second, at the end of the context where that is slower", _rate
)
