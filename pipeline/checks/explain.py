"""What a failed budget is dominated by, and which change would bring it within the limit, where that is known."""

from __future__ import annotations

from pipeline.checks.measurements import Measurements
from pipeline.core.types import Scheme

_SHOWN = 3


def explain(metric: str, limit: float, found: Measurements, scheme: Scheme) -> tuple[tuple[str, ...], str]:
    """(what dominates it, the remedy) in words."""
    explainers = {
        "bundle_mb": _size,
        "peak_memory_mb": _memory,
        "latency_p50_ms": _time,
        "latency_p95_ms": _time,
        "min_speedup": _time,
        "max_accuracy_drop": _accuracy,
        "min_top10_overlap": _accuracy,
        "min_agreement": _accuracy,
        "min_weight_coverage": _coverage,
        "min_mac_coverage": _coverage,
    }
    if metric not in explainers:
        return (), ""
    return explainers[metric](limit, found, scheme)


def _size(limit: float, found: Measurements, scheme: Scheme) -> tuple[tuple[str, ...], str]:
    largest = tuple(
        f"{group.name} ({group.dtype}): {group.megabytes:.2f} MB, {group.share:.0%}" for group in found.tensors[:_SHOWN]
    )
    return largest, _smaller_formats(limit, found, scheme)


def _smaller_formats(limit: float, found: Measurements, scheme: Scheme) -> str:
    """Halving or quartering the bits of tables or products saves that share of their bytes; say what it comes to."""
    total = found.figures["bundle_mb"].value
    embedding = sum(group.megabytes for group in found.tensors if "embed" in group.name)
    others = sum(group.megabytes for group in found.tensors) - embedding
    options = []
    if scheme.embeddings > 4:
        options.append(("embeddings = 4", total - embedding * (1 - 4.5 / scheme.embeddings)))
    if scheme.weights > 4:
        options.append(("the scheme w4", total - (embedding + others) * (1 - 4.5 / scheme.weights)))
    fitting = [option for option in options if option[1] <= limit]
    if fitting:
        name, size = fitting[0]
        return f"{name} would bring it to about {size:.1f} MB."
    return f"No format reaches {limit:g} MB alone: prune, or choose a smaller model."


def _memory(limit: float, found: Measurements, _: Scheme) -> tuple[tuple[str, ...], str]:
    assert found.memory is not None  # noqa: S101  # it has a figure
    parts = (
        f"load peak {found.memory.load_peak_mb.value:.1f} MB",
        f"run peak {found.memory.run_peak_mb.value:.1f} MB",
    )
    stored = sum(group.megabytes for group in found.tensors)
    if stored > limit:
        return (
            parts,
            f"The stored tensors alone take {stored:.1f} MB: a smaller format or pruning has to come first.",
        )
    return (
        parts,
        'Try session_config = { "session.disable_prepacking" = "1" } in the target: slower, but smaller.',
    )


def _time(_: float, found: Measurements, __: Scheme) -> tuple[tuple[str, ...], str]:
    slowest = tuple(
        f"{time.op_type} x{time.count}: {time.ms:.2f} ms, {time.share:.0%}" for time in found.operators[:_SHOWN]
    )
    return (
        slowest,
        "A smaller sequence_length, the prune pass, or a scheme with INT8 arithmetic takes less time.",
    )


def _accuracy(_: float, found: Measurements, scheme: Scheme) -> tuple[tuple[str, ...], str]:
    ordered = sorted(found.accuracy, key=lambda result: -result.drop)
    worst = tuple(f"{result.dataset}: {result.drop:.2f} points" for result in ordered[:_SHOWN])
    return worst, f"Compress less, recover with distill on more texts or images like yours, or try {_finer(scheme)}."


def _finer(scheme: Scheme) -> str:
    if scheme.activations != "float" and scheme.weights == 8:
        return "the observer percentile or another smoothing"
    return {4: "a smaller --block-size or embeddings = 8", 8: "the scheme fp16"}.get(scheme.weights, "the scheme fp32")


def _coverage(_: float, found: Measurements, __: Scheme) -> tuple[tuple[str, ...], str]:
    assert found.coverage is not None  # noqa: S101  # it has a figure
    left = found.coverage.left_in_float
    shown = tuple(f"{t.name} ({t.op_type}): {t.megabytes:.2f} MB, {t.reason}" for t in left[:_SHOWN])
    if any(tensor.reason == "excluded by name" for tensor in left):
        return shown, "Take these layers off --nodes-to-exclude."
    return shown, "Choose a scheme that rounds these operators, or lower the budget for models that have them."
