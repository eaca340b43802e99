"""What a failed budget is dominated by, and which change would bring it within the limit, where that is known.

A remedy is named only where it can help: of a scheme, only what it has not been given yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pipeline.checks.measurements import Measurements
from pipeline.checks.operators import BLOCKS, CONVOLUTIONS, EXPERTS, MATMULS, RECURRENT, TRANSPOSED
from pipeline.checks.sizes import LOOKED_UP, estimated_sizes
from pipeline.core.report_types import OperatorTime, SkippedTensor
from pipeline.core.types import Scheme
from pipeline.formats.scheme import OVERRIDDEN, SchemeFormats

EXCLUDED = "excluded by name"
"""The reason that the quantization plan gives for weights of excluded nodes."""
PREPACKING = "session.disable_prepacking"
_SHOWN = 3
_PRODUCTS = {*MATMULS, *CONVOLUTIONS, *TRANSPOSED, *BLOCKS, *RECURRENT, *EXPERTS}
_ROUNDING = {"DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear"}

Explained = tuple[tuple[str, ...], str]


def explain(metric: str, limit: float, found: Measurements, scheme: Scheme) -> Explained:
    """(what dominates it, the remedy) in words."""
    explainers: dict[str, Callable[[float, Measurements, Scheme], Explained]] = {
        "bundle_mb": _size,
        "peak_memory_mb": _memory,
        "latency_p50_ms": _time,
        "latency_p95_ms": _time,
        "min_speedup": _speedup,
        "max_accuracy_drop": _accuracy,
        "min_top10_overlap": _accuracy,
        "min_agreement": _accuracy,
        "min_sqnr_db": _noise,
        "min_weight_coverage": _coverage,
        "min_mac_coverage": _coverage,
    }
    if metric not in explainers:
        return (), ""
    return explainers[metric](limit, found, scheme)


def _any_of(options: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = options
    return f"{', '.join(others)} or {last}" if others else last


def _size(limit: float, found: Measurements, scheme: Scheme) -> Explained:
    largest = tuple(
        f"{group.name} ({group.dtype}): {group.megabytes:.2f} MB, {group.share:.0%}" for group in found.tensors[:_SHOWN]
    )
    return largest, _smaller_formats(limit, found, scheme)


def _smaller_formats(limit: float, found: Measurements, scheme: Scheme) -> str:
    """What other formats would come to, computed from the stored weights."""
    total = found.figures["bundle_mb"].value
    estimates = estimated_sizes(found.weights, found.coverage, scheme, total)
    fitting = [(name, size) for name, size in estimates.items() if size <= limit]
    if fitting:
        name, size = fitting[0]
        return f"{name} would bring it to about {size:.1f} MB."
    smaller = {name: size for name, size in estimates.items() if size < total}
    said = ""
    if smaller:
        name = min(smaller, key=lambda option: smaller[option])
        said = f" (the smallest, {name}, comes to about {smaller[name]:.1f} MB)"
    return f"No format reaches {limit:g} MB alone{said}: prune, or choose a smaller model."


def _memory(limit: float, found: Measurements, scheme: Scheme) -> Explained:
    assert found.memory is not None  # noqa: S101  # it has a figure
    peaks = {"load": found.memory.load_peak_mb, "run": found.memory.run_peak_mb}
    parts = tuple(f"{name} peak {figure.value:.1f} MB" for name, figure in peaks.items() if figure)
    stored = sum(group.megabytes for group in found.tensors)
    if stored > limit:
        said = f"The stored tensors alone take {stored:.1f} MB: "
        total = found.figures["bundle_mb"].value
        estimates = estimated_sizes(found.weights, found.coverage, scheme, total)
        if any(size < total for size in estimates.values()):
            return parts, said + "a smaller format or pruning has to come first."
        return parts, said + "pruning or a smaller model has to come first."
    if found.runtime.session_config.get(PREPACKING) == "1":
        return parts, ""
    return parts, f'Try session_config = {{ "{PREPACKING}" = "1" }} in the target: slower, but smaller.'


def _slowest(times: Sequence[OperatorTime]) -> tuple[str, ...]:
    return tuple(f"{time.op_type} x{time.count}: {time.ms:.2f} ms, {time.share:.0%}" for time in times[:_SHOWN])


def _time(_: float, found: Measurements, scheme: Scheme) -> Explained:
    options = ["a smaller --sequence-length"] if found.takes_text else []
    options.append("the prune pass (of a PyTorch model)")
    if not SchemeFormats(scheme).integer_products:
        options.append("a scheme with INT8 arithmetic (w8a8-dynamic, w8a8)")
    return _slowest(found.operators), f"What takes less time: {_any_of(options)}."


def _speedup(_: float, found: Measurements, scheme: Scheme) -> Explained:
    """Which part of the graph is slower than it is in float, since the speed is that of both on this machine."""
    formats = SchemeFormats(scheme)
    products, before = _spent(found.operators, _PRODUCTS), _spent(found.float_operators, _PRODUCTS)
    rounding = _spent(found.operators, _ROUNDING)
    parts = _slowest(found.operators)
    if found.float_operators:
        parts += (f"products: {products:.2f} ms, in float {before:.2f} ms; rounding beside them: {rounding:.2f} ms",)
    if not formats.integer_products:
        return parts, _float_arithmetic(formats)
    if not found.float_operators:
        return parts, ""
    if products >= before:
        return parts, (
            "On this machine the products with 8-bit arithmetic are slower than in float: measure on the device, or "
            "leave the slowest layers in float with --nodes-to-exclude."
        )
    if products + rounding >= before:
        static = ", use ranges that calibration finds (w8a8)" if formats.finds_ranges_at_run_time else ""
        return parts, (
            f"Rounding activations costs more than the products gain: leave small layers in float with "
            f"--nodes-to-exclude{static}, or prune."
        )
    return parts, "The products are faster than in float, and what is left no format makes faster: prune."


def _spent(times: Sequence[OperatorTime], kinds: set[str]) -> float:
    return sum(time.ms for time in times if time.op_type in kinds)


def _float_arithmetic(formats: SchemeFormats) -> str:
    named = formats.classes["linear"].integer_schemes
    said = f"The scheme {formats.scheme.name} multiplies in float, as the float model does"
    return f"{said}: choose INT8 arithmetic ({named})."


def _accuracy(_: float, found: Measurements, scheme: Scheme) -> Explained:
    ordered = sorted(found.accuracy, key=lambda result: -result.drop)
    worst = tuple(f"{result.dataset}: {result.drop:.2f} points" for result in ordered[:_SHOWN])
    finer = finer_formats(found, scheme)
    recover = "Compress less in passes, if there are some, or recover with the distill pass (of a PyTorch model)"
    return worst, f"{recover}; of the number formats, try {_any_of(finer)}." if finer else f"{recover}."


def _noise(_: float, found: Measurements, scheme: Scheme) -> Explained:
    finer = finer_formats(found, scheme)
    return (), f"Try {_any_of(finer)}." if finer else ""


def finer_formats(found: Measurements, scheme: Scheme) -> list[str]:
    """What would keep more accuracy than `scheme` does; empty for float."""
    formats = SchemeFormats(scheme)
    linear, table = formats.classes["linear"], formats.classes["table"]
    if not formats.rounds:
        return []
    fields = []
    if scheme.smoothing is not None:
        fields.append(f"another smoothing than {scheme.smoothing:g}")
    if formats.needs_ranges and scheme.observer == "minmax":
        fields.append('observer = "percentile"')
    if table.finer("table") and _has_tables(found):
        fields.append(table.finer("table"))
    if scheme.min_sqnr_db is None and linear.code_bits < 16:
        fields.append("min_sqnr_db, which leaves sensitive layers in float,")
    options = [f"{_any_of(fields)} in the recipe's scheme"] if fields else []
    if linear.has_smaller_blocks and _in_blocks(found):
        options.append("a smaller --block-size")
    return [*options, linear.finer("linear") or "the scheme fp32"]


def _in_blocks(found: Measurements) -> bool:
    return any(weight.bits == 4 and weight.op_type not in LOOKED_UP for weight in found.weights)


def _has_tables(found: Measurements) -> bool:
    return any(weight.bits == 4 and weight.op_type in LOOKED_UP for weight in found.weights)


def _coverage(limit: float, found: Measurements, scheme: Scheme) -> Explained:
    assert found.coverage is not None  # noqa: S101  # it has a figure
    left = found.coverage.left_in_float
    shown = tuple(f"{t.name} ({t.op_type}): {t.megabytes:.2f} MB, {t.reason}" for t in left[:_SHOWN])
    if len(left) > _SHOWN:
        rest = sum(tensor.megabytes for tensor in left[_SHOWN:])
        shown += (f"and {len(left) - _SHOWN} more, {rest:.2f} MB together",)
    return shown, _cover(limit, found.coverage.weights.value, left, scheme)


def _cover(limit: float, covered: float, left: Sequence[SkippedTensor], scheme: Scheme) -> str:
    excluded = sum(tensor.megabytes for tensor in left if tensor.reason == EXCLUDED)
    whole = sum(tensor.megabytes for tensor in left)
    if excluded and covered + (1 - covered) * excluded / whole >= limit:
        return "Take these layers off --nodes-to-exclude."
    options = ["take the excluded layers off --nodes-to-exclude"] if excluded else []
    formats = SchemeFormats(scheme)
    if max(form.code_bits for form in formats.classes.values()) >= 16:
        options.append("choose a scheme that stores weights and embeddings in 8 or 4 bits")
    elif any(tensor.op_type in CONVOLUTIONS for tensor in left) and formats.classes["conv"].refuses("conv"):
        options.append("choose the scheme w8a8, which takes convolutions")
    if any(OVERRIDDEN in tensor.reason for tensor in left):
        options.append("change the overrides that keep layers in float")
    if scheme.min_sqnr_db is not None:
        options.append("lower min_sqnr_db, which keeps layers in float")
    if not options:
        return "No scheme takes what is left: lower the budget for models that have such layers."
    said = _any_of(options)
    return f"{said[0].upper()}{said[1:]}; for what no scheme takes, lower the budget."
