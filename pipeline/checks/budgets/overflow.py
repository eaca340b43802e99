"""The budget on 8-bit products that x86 without VNNI may compute otherwise."""

from __future__ import annotations

from pipeline.checks.budgets.metric import Absent, Explained, Metric, Outcome, Tolerance
from pipeline.checks.explain import SHOWN
from pipeline.checks.measurements import Measurements
from pipeline.core.types import computed


def _share(found: Measurements) -> Outcome:
    counted = found.records.overflow
    if counted is None:
        return Absent()
    if not counted.pairs:
        return computed(0.0, "share", "no product has INT8 weights")
    return computed(counted.overflowing / counted.pairs, "share", f"{counted.overflowing} of {counted.pairs} pairs")


def _explain(_: float, found: Measurements) -> Explained:
    layers = found.records.overflow.layers if found.records.overflow else ()
    worst = tuple(f"{layer.name} ({layer.op_type}): {layer.share:.1%}" for layer in layers[:SHOWN])
    if found.case.scheme.reduce_range:
        return (
            worst,
            "The scheme's own weights cannot overflow; these are the model's: quantize the float one.",
        )
    return worst, "Set reduce_range = true in the recipe's scheme: its weights cannot overflow."


OVERFLOW = Metric(
    "share",
    "at most",
    "neighbouring INT8 weights whose products can overflow on x86 without VNNI, which then answers otherwise",
    _share,
    _explain,
    Tolerance(share=0.001),
)
