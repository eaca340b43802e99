"""Budgets on time: the median and the 95th percentile of one inference, and the speed over the float model's."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.checks.budgets.metric import (
    NO_REFERENCE,
    Absent,
    Explained,
    Metric,
    Outcome,
    Tolerance,
    estimated,
    not_there,
)
from pipeline.checks.explain import SHOWN, any_of
from pipeline.checks.measurements import Measurements
from pipeline.core.report_types import OperatorTime
from pipeline.devices.runner import lacking
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.operators import BLOCKS, CONVOLUTIONS, EXPERTS, MATMULS, RECURRENT, TRANSPOSED

_PRODUCTS = {*MATMULS, *CONVOLUTIONS, *TRANSPOSED, *BLOCKS, *RECURRENT, *EXPERTS}
_ROUNDING = {"DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear"}


def _p50(found: Measurements) -> Outcome:
    latency = found.records.latency
    return estimated("latency_p50_ms", latency.p50 if latency else not_there(found, "times"), found)


def _p95(found: Measurements) -> Outcome:
    latency = found.records.latency
    return estimated("latency_p95_ms", latency.p95 if latency else not_there(found, "times"), found)


def _speedup(found: Measurements) -> Outcome:
    latency = found.records.latency
    if latency is None and lacking(found.case.giving("times"), "times"):
        return not_there(found, "times")
    return latency.speedup if latency and latency.speedup else Absent(NO_REFERENCE)


def _previous_speed(found: Measurements) -> Outcome:
    if found.case.previous is None:
        return Absent("no earlier bundle was given (--previous)", applies=False)
    return found.records.previous_speed or not_there(found, "times")


def _slowest(times: Sequence[OperatorTime]) -> tuple[str, ...]:
    return tuple(f"{time.op_type} x{time.count}: {time.ms:.2f} ms, {time.share:.0%}" for time in times[:SHOWN])


def _explain_time(_: float, found: Measurements) -> Explained:
    options = ["a smaller --sequence-length"] if found.takes_text else []
    if found.takes_passes:
        options.append("the prune pass (of a PyTorch model)")
    if not SchemeFormats(found.case.scheme).integer_products:
        options.append("a scheme with INT8 arithmetic (w8a8-dynamic, w8a8)")
    return _slowest(found.records.operators), f"What takes less time: {any_of(options)}." if options else ""


def _explain_speedup(_: float, found: Measurements) -> Explained:
    """Which part of the graph is slower than it is in float, since the speed is that of both on one machine."""
    formats, in_float = SchemeFormats(found.case.scheme), found.records.float_operators
    products, before = _spent(found.records.operators, _PRODUCTS), _spent(in_float, _PRODUCTS)
    rounding = _spent(found.records.operators, _ROUNDING)
    parts = _slowest(found.records.operators)
    if in_float:
        parts += (f"products: {products:.2f} ms, in float {before:.2f} ms; rounding beside them: {rounding:.2f} ms",)
    if not formats.integer_products:
        return parts, _float_arithmetic(formats)
    if not in_float:
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
            f"--nodes-to-exclude{static}{', or prune' if found.takes_passes else ''}."
        )
    prune = ": prune" if found.takes_passes else ""
    return parts, f"The products are faster than in float, and what is left no format makes faster{prune}."


def _spent(times: Sequence[OperatorTime], kinds: set[str]) -> float:
    return sum(time.ms for time in times if time.op_type in kinds)


def _float_arithmetic(formats: SchemeFormats) -> str:
    named = formats.classes["linear"].integer_schemes
    said = f"The scheme {formats.scheme.name} multiplies in float, as the float model does"
    return f"{said}: choose INT8 arithmetic ({named})."


P50 = Metric("ms", "at most", "median time of one inference", _p50, _explain_time)
P95 = Metric("ms", "at most", "95th percentile of the time of one inference", _p95, _explain_time)
SPEEDUP = Metric(
    "x",
    "at least",
    "float latency over bundle latency, interleaved in one run",
    _speedup,
    _explain_speedup,
    Tolerance(share=0.10),
)
"""Absolute latencies of two runs are not compared with a baseline: machines drift; the speed-up, measured against float
in each run, is."""
PREVIOUS_SPEED = Metric(
    "x",
    "at least",
    "latency of an earlier bundle over this one's, in turns in one run (--previous)",
    _previous_speed,
    _explain_time,
)
