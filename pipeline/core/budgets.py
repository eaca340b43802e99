"""The kinds of budget: name, unit, and on which side of the limit a figure must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class BudgetKind:
    unit: str
    direction: Literal["at most", "at least"]
    meaning: str


BUDGETS: dict[str, BudgetKind] = {
    "latency_p50_ms": BudgetKind("ms", "at most", "median time of one inference"),
    "latency_p95_ms": BudgetKind("ms", "at most", "95th percentile of the time of one inference"),
    "load_ms": BudgetKind("ms", "at most", "time to make the session"),
    "peak_memory_mb": BudgetKind("MB", "at most", "higher of load peak and run peak, over the process before"),
    "bundle_mb": BudgetKind("MB", "at most", "size of all files of the bundle on disk"),
    "max_accuracy_drop": BudgetKind("points", "at most", "drop against the float model on the worst data set"),
    "min_top10_overlap": BudgetKind("share", "at least", "float's ten nearest neighbours kept, worst data set"),
    "min_agreement": BudgetKind("share", "at least", "samples with float's top class, worst data set"),
    "min_weight_coverage": BudgetKind("share", "at least", "weight values stored in 8 bits or fewer"),
    "min_mac_coverage": BudgetKind("share", "at least", "weighted multiply-accumulates with INT8/INT4 weights"),
    "min_speedup": BudgetKind("x", "at least", "float latency over bundle latency, interleaved in one run"),
    "min_sqnr_db": BudgetKind("dB", "at least", "signal over quantization noise, worst output, on calibration samples"),
    "max_power_w": BudgetKind("W", "at most", "power drawn while the model runs back to back"),
}
