"""The metrics that a budget can limit, by name. Each stands with its family in checks/budgets/."""

from __future__ import annotations

from typing import Literal, Protocol

from pipeline.core.registry import Registry

Direction = Literal["at most", "at least"]


class Limited(Protocol):
    """What a target's readers must know of a metric: unit, meaning, and on which side of the limit a figure must be."""

    @property
    def unit(self) -> str: ...
    @property
    def direction(self) -> Direction: ...
    @property
    def meaning(self) -> str: ...


PREVIOUS = "min_previous_speedup"
"""On the speed over an earlier bundle."""

BUDGETS: Registry[Limited] = Registry(
    "budget",
    {
        "latency_p50_ms": "pipeline.checks.budgets.latency:P50",
        "latency_p95_ms": "pipeline.checks.budgets.latency:P95",
        "ttft_p95_ms": "pipeline.checks.budgets.decoding:FIRST",
        "min_tokens_per_s": "pipeline.checks.budgets.decoding:RATE",
        "load_ms": "pipeline.checks.budgets.memory:LOAD",
        "peak_memory_mb": "pipeline.checks.budgets.memory:PEAK",
        "bundle_mb": "pipeline.checks.budgets.size:BUNDLE",
        "max_accuracy_drop": "pipeline.checks.budgets.accuracy:DROP",
        "min_score": "pipeline.checks.budgets.accuracy:SCORE",
        "min_top10_overlap": "pipeline.checks.budgets.accuracy:TOP10",
        "min_golden_match": "pipeline.checks.budgets.tiers:GOLDEN",
        "max_tier_drop": "pipeline.checks.budgets.tiers:TIER_DROP",
        "instructions_m": "pipeline.checks.budgets.instructions:TOTAL",
        "min_instruction_ratio": "pipeline.checks.budgets.instructions:RATIO",
        "min_dot_share": "pipeline.checks.budgets.instructions:DOT",
        "min_agreement": "pipeline.checks.budgets.accuracy:AGREEMENT",
        "max_kl_per_token": "pipeline.checks.budgets.language:KL",
        "max_perplexity_increase": "pipeline.checks.budgets.language:PERPLEXITY",
        "max_repetition_increase": "pipeline.checks.budgets.language:REPETITION",
        "max_exact_match_drop": "pipeline.checks.budgets.language:EXACT_MATCH",
        "min_weight_coverage": "pipeline.checks.budgets.coverage:WEIGHTS",
        "min_mac_coverage": "pipeline.checks.budgets.coverage:MACS",
        "min_npu_coverage": "pipeline.checks.budgets.npu:COVERAGE",
        "max_npu_parts": "pipeline.checks.budgets.npu:PARTS",
        "max_overflow": "pipeline.checks.budgets.overflow:OVERFLOW",
        "min_speedup": "pipeline.checks.budgets.latency:SPEEDUP",
        PREVIOUS: "pipeline.checks.budgets.latency:PREVIOUS_SPEED",
        "min_sqnr_db": "pipeline.checks.budgets.sqnr:SQNR",
        "max_power_w": "pipeline.checks.budgets.power:POWER",
    },
    parts=("unit", "direction", "meaning", "tolerance", "on_set", "figure", "explain"),
)
