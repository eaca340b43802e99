"""How well the cost model of `pipeline/forecast/latency.py` predicts published latencies: rows of EDGE_DATA.

Rows are ONNX Runtime 1.23 on the CPU of three devices, all cores (device_truth/cpu_rows_all_versions.csv, Qualcomm AI
Hub Models 0.46.1; w8a16 rows that this release lacks are taken from 0.42 to 0.44). The work of each network
(`network_work.json`) was counted with `pipeline/checks/work.py` on the graph that ONNX Runtime 1.23.0 made of the
network as its authors published it, with random weights, and QDQ nodes on all operators. Two networks of the rows are
missing, since their definitions could not be had (YOLOR, HRNet in w8a16). `python -m benchmarks.device_latency` prints
the coefficients that pipeline/forecast/latency.toml has.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares, nnls
from scipy.stats import rankdata

from benchmarks.data import folder
from benchmarks.row import Measured, Row
from pipeline.config.loading import load_target
from pipeline.config.target import Target
from pipeline.forecast.latency import LatencyEstimate, estimate_latency, known
from pipeline.forecast.work import KINDS, Work

Array: TypeAlias = npt.NDArray[np.float64]
DEVICES = ("Snapdragon 7 Gen 4 QRD", "Dragonwing Q-6690 MTP", "Dragonwing RB3 Gen 2 Vision Kit")
RELEASES = ("HEAD", "v0.44.0", "v0.42.0")
"""Newest first; w8a8 rows are of the first alone."""
_START = (2.8, 5.0, 50.0, 200.0, 20.0, 150.0, 200.0, 4.0, 10.0)
"""Coefficients before any row is seen, in the order of KINDS: ps of a product and of a value, us of a call."""
_SCALE = np.array([1e-9] * 7 + [1e-3] * 2)
"""To milliseconds."""
_SPREAD, _OF_DEVICE, _OF_DEVICE_WIDE = 1.0, 0.3, 0.6
"""Standard deviations (log) of a coefficient around its start, and of a device's around that of all."""
_VARYING = ("pointwise", "floats", "byte_calls", "float_calls")
"""What instruction sets and thread pools change most."""
_NOISE = {"w8a8": 0.1, "w8a16": 0.3}
_FEWEST = 15
"""Networks of a device that are worth ranking."""
INTERVAL = 1.65
"""Standard deviations from the middle of a normal distribution to the ends of 90 % of it."""


@dataclass(frozen=True)
class Published:
    """A row: a network on a device, in milliseconds."""

    network: str
    precision: str
    device: int
    ms: float
    work: Work
    products: float


@cache
def published(precision: str) -> tuple[Published, ...]:
    works = {
        (entry["model"], entry["component"], entry["precision"]): (
            Work.from_data(entry["work"], "network_work.json"),
            entry["products"],
        )
        for entry in json.loads(Path(__file__).with_name("network_work.json").read_text(encoding="utf-8"))
    }
    found: dict[tuple[str, str, int], Published] = {}
    for release in RELEASES[: 1 if precision == "w8a8" else None]:
        for row in _rows(release, precision):
            component = row["component"] if (row["model"], row["component"], precision) in works else ""
            known_work, device = works.get((row["model"], component, precision)), DEVICES.index(row["device"])
            key = (row["model"], component, device)
            if known_work is not None and key not in found:
                ms = float(row["inference_ms"])
                found[key] = Published(row["model"] + component, precision, device, ms, *known_work)
    return tuple(found.values())


def _rows(release: str, precision: str, devices: Sequence[str] = DEVICES) -> list[dict[str, str]]:
    with (folder() / "device_truth" / "cpu_rows_all_versions.csv").open(encoding="utf-8") as file:
        return [
            row
            for row in csv.DictReader(file)
            if row["version"] == release
            and (row["runtime"], row["precision"]) == ("onnx", precision)
            and row["device"] in devices
            and float(row["layers_cpu"] or 0) > 0 == float(row["layers_npu"] or 0)
        ]


def amounts(rows: Iterable[Published]) -> Array:
    """float [rows, kinds]."""
    return np.array([[getattr(row.work, kind) for kind in KINDS] for row in rows])


def fitted(rows: Sequence[Published]) -> Array:
    """Coefficients [devices, kinds] of largest posterior probability: relative errors with the tails of soft L1, each
    coefficient log-normal around its start, each device's around that of all."""
    work, ms = amounts(rows), np.log([row.ms for row in rows])
    devices = np.array([row.device for row in rows])
    noise = np.array([_NOISE[row.precision] for row in rows])
    start, size = np.log(_START), len(KINDS)
    wide = np.array([_OF_DEVICE_WIDE if kind in _VARYING else _OF_DEVICE for kind in KINDS])

    def residuals(point: Array) -> Array:
        common, own = point[:size], point[size:].reshape(-1, size)
        predicted = np.log((work * np.exp(common + own[devices]) * _SCALE).sum(axis=1))
        return np.concatenate([(predicted - ms) / noise, (common - start) / _SPREAD, (own / wide).ravel()])

    begin = np.concatenate([start, np.zeros(size * len(DEVICES))])
    found: Array = least_squares(residuals, begin, loss="soft_l1").x
    return np.exp(found[:size] + found[size:].reshape(-1, size))


def predicted(row: Published, coefficients: Array) -> float:
    return float((amounts([row])[0] * coefficients[row.device] * _SCALE).sum())


@cache
def left_out(precision: str) -> tuple[tuple[Published, float], ...]:
    """Each row of a precision, with what the rows of all other networks predict of it."""
    rows = (*published("w8a8"), *published("w8a16"))
    found = []
    for network in sorted({row.network for row in rows}):
        coefficients = fitted([row for row in rows if row.network != network])
        found += [(row, predicted(row, coefficients)) for row in rows if row.network == network]
    return tuple(pair for pair in found if pair[0].precision == precision)


def log_errors(precision: str) -> Array:
    return np.array([math.log(value / row.ms) for row, value in left_out(precision)])


def _relative(errors: Array) -> Array:
    return np.abs(np.exp(errors) - 1)


@cache
def on_products_alone() -> Array:
    """Log errors of what is usual: milliseconds per multiply-accumulate, of each device, with networks left out; the
    one of least squared relative errors (of the median one, errors are larger)."""
    rows = published("w8a8")
    errors = []
    for row in rows:
        others = [other for other in rows if other.device == row.device and other.network != row.network]
        shares = np.array([other.products / other.ms for other in others])
        errors.append(math.log(row.products * shares.sum() / (shares @ shares) / row.ms))
    return np.array(errors)


def half_width(precision: str) -> float:
    """Log half-width of the 90 % interval."""
    return float(INTERVAL * np.sqrt(np.mean(log_errors(precision) ** 2)))


def median_error(precision: str) -> Measured:
    reference = on_products_alone() if precision == "w8a8" else log_errors(precision)
    ends = np.median if precision == "w8a8" else np.max
    return Measured(100 * float(np.median(_relative(log_errors(precision)))), 100 * float(ends(_relative(reference))))


def rank_correlation(precision: str) -> Measured:
    """Spearman's, the least of the devices; beside it, of how many rows."""
    found = left_out(precision)
    each = []
    for device in range(len(DEVICES)):
        pairs = [(row.ms, value) for row, value in found if row.device == device]
        each.append(float(np.corrcoef(*(rankdata(side) for side in zip(*pairs, strict=True)))[0, 1]))
    return Measured(min(each), len(found))


def covered(precision: str) -> Measured:
    """Share of the rows that the 90 % interval holds, its width from the other networks' errors; beside it, the ratio
    of its ends."""
    found, errors = left_out(precision), log_errors(precision)
    networks = np.array([row.network for row, _ in found])
    inside, ratios = [], []
    for network, error in zip(networks, errors, strict=True):
        half = INTERVAL * float(np.sqrt(np.mean(errors[networks != network] ** 2)))
        inside.append(abs(error) <= half)
        ratios.append(math.exp(2 * half))
    return Measured(float(np.mean(inside)), max(ratios))


def interval_ratio() -> Measured:
    """Upper end over lower end of the interval that ships; beside it, that of products in float."""
    widths = [known().intervals[name].half_width for name in ("int8-convolutional", "other")]
    return Measured(math.exp(2 * widths[0]), math.exp(2 * widths[1]))


def _rb5() -> Target:
    """Qualcomm's RB5 (QRB5165, Kryo 585: four Cortex-A77 and four A55), all cores; no coefficient is fitted to it."""
    device = {
        "soc": "QRB5165",
        "clusters": [
            {"core": core, "count": count, "clock_mhz": clock}
            for core, count, clock in (("Cortex-A77", 1, 2840), ("Cortex-A77", 3, 2420), ("Cortex-A55", 4, 1800))
        ],
        "isa": ["asimd", "fphp", "asimdhp", "asimddp"],
    }
    data = load_target("phone-budget").model_dump()
    data["device"] |= device
    data["runtime"]["threads"] = 8
    return Target.from_data(data, "the RB5")


def other_device_error() -> Measured:
    """Median error on the RB5's w8a8 rows of release 0.44; beside it, the share of them in the interval."""
    works = {(row.network): row.work for row in published("w8a8")}
    target, errors, inside = _rb5(), [], []
    for row in _rows("v0.44.0", "w8a8", ("RB5 (Proxy)",)):
        work = works.get(row["model"]) or works.get(row["model"] + row["component"])
        found = estimate_latency(work, target) if work else None
        if isinstance(found, LatencyEstimate):
            ms = float(row["inference_ms"])
            errors.append(abs(found.p50.typical / ms - 1))
            inside.append(found.p50.low <= ms <= found.p50.high)
    return Measured(100 * float(np.median(errors)), float(np.mean(inside)))


def npu_rank_correlation() -> Measured:
    """Spearman's, the median over the devices, of NPU times in w8a8 that the other networks predict; beside it, the
    median error in percent."""
    works = {row.network: row.work for row in published("w8a8")}
    ranks, errors = [], []
    for rows in _npu_rows(works).values():
        names, ms = list(rows), np.array(list(rows.values()))
        amounts_of = np.array([_npu_amounts(works[name]) for name in names])
        found = []
        for place in range(len(names)):
            others = np.arange(len(names)) != place
            rates, _ = nnls(amounts_of[others] / ms[others, None], np.ones(others.sum()))
            found.append(float(amounts_of[place] @ rates))
        ranks.append(float(np.corrcoef(rankdata(found), rankdata(ms))[0, 1]))
        errors += list(np.abs(np.array(found) / ms - 1))
    return Measured(float(np.median(ranks)), 100 * float(np.median(errors)))


def npu_rank_ceiling() -> Measured:
    """Spearman's, the median over the devices, of these NPU times and those of the same networks under Qualcomm's own
    runtime there (qnn_dlc): what is left to chance and compilers; beside it, of pairs of devices."""
    works = {row.network: row.work for row in published("w8a8")}
    ours, theirs = _npu_rows(works), _npu_rows(works, "qnn_dlc")
    ranks = [_rank(rows, theirs[device]) for device, rows in ours.items() if device in theirs]
    pairs = [_rank(one, other) for one, other in combinations(ours.values(), 2)]
    return Measured(float(np.median(ranks)), float(np.median(pairs)))


def _rank(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    both = [name for name in one if name in other]
    ranked = [rankdata([rows[name] for name in both]) for rows in (one, other)]
    return float(np.corrcoef(*ranked)[0, 1])


def _npu_amounts(work: Work) -> list[float]:
    """Products, those that fill no matrix unit, values, calls, and what every inference takes."""
    values = work.byte_values + work.float_values
    calls = work.byte_calls + work.float_calls
    return [work.pointwise + work.window, work.depthwise + work.gathered, values, calls, 1.0]


def _npu_rows(works: Mapping[str, Work], runtime: str = "onnx") -> dict[str, dict[str, float]]:
    """Milliseconds on the NPU by device and network, of devices with at least fifteen of them."""
    found: dict[str, dict[str, float]] = {}
    with (folder() / "device_truth" / "aihub_perf_065.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = row["model"] if row["model"] in works else row["model"] + row["component"]
            if (row["runtime"], row["unit"], row["precision"]) == (runtime, "NPU", "w8a8") and name in works:
                found.setdefault(row["device"], {})[name] = float(row["inference_ms"])
    return {device: rows for device, rows in found.items() if len(rows) >= _FEWEST}


ROWS = [
    Row("estimate.npu.rank_corr", "Spearman", "median error, %", npu_rank_correlation),
    Row("estimate.npu.rank_ceiling", "Spearman", "the same, between devices", npu_rank_ceiling),
    Row("estimate.interval_ratio", "x", "the same, of products in float", interval_ratio),
    Row("estimate.other_device.median_error", "%", "share of its rows in the interval", other_device_error),
    Row("estimate.median_error", "%", "a fit on multiply-accumulates alone", lambda: median_error("w8a8")),
    Row("estimate.rank_corr", "Spearman", "rows", lambda: rank_correlation("w8a8")),
    Row("estimate.coverage90", "share", "upper end over lower end of the interval", lambda: covered("w8a8")),
    Row("estimate.other.median_error", "%", "largest error", lambda: median_error("w8a16")),
    Row("estimate.other.rank_corr", "Spearman", "rows", lambda: rank_correlation("w8a16")),
    Row("estimate.other.coverage90", "share", "upper end over lower end", lambda: covered("w8a16")),
]


if __name__ == "__main__":
    for device, found in zip(DEVICES, fitted((*published("w8a8"), *published("w8a16"))), strict=True):
        print(device, {kind: float(f"{value:.3g}") for kind, value in zip(KINDS, found, strict=True)})
    for name in ("w8a8", "w8a16"):
        print(name, "half-width", round(half_width(name), 3))
        for one, value in left_out(name):
            print(f"  {one.network:40s} {DEVICES[one.device][:22]:22s} {one.ms:8.1f} {value:8.1f}")
    for measured in ROWS:
        print(measured.id, measured.measure())
