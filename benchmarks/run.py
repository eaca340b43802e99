"""`make bench`: measure the published figures into benchmarks/results.json, one row per figure.

    make bench                     # the rows that are not there yet
    make bench ID=minilm.int8.mb   # this row, again
    make bench ID=minilm.int8      # all rows whose names begin so
    make bench ARGS=--again        # all rows, again

A row is written as soon as it is measured, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import (
    arm64,
    batching,
    blocks,
    bundles,
    cases,
    clients,
    cnn,
    decoding,
    device_latency,
    faults,
    forecast,
    gate_speed,
    installs,
    kept_cache,
    kill,
    large_models,
    layers,
    low_rank,
    minilm,
    npu,
    passes,
    peers,
    readme_speeds,
    resnet,
    runners,
    sameness,
    sparsify,
    structure,
    sums,
    texten,
    times,
    two_processes,
)
from benchmarks.fuzz import runs as fuzz
from benchmarks.real import rows as real
from benchmarks.row import Measured, Row
from pipeline.core.digest import pretty_json
from pipeline.devices.host_info import host_info, versions

RESULTS = Path(__file__).parent / "results.json"
_INT8, _STATIC, _INT4 = ("w8a8-dynamic", "phone"), ("w8a8", "car"), ("w4", "robot")


def _cnn_rows(name: str) -> list[Row]:
    return [
        Row(f"cnn.{name}.drop", "points", "float32 accuracy", partial(cnn.drop, name)),
        Row(f"cnn.{name}.speedup", "x", "float32, ms (1 thread, batch 1, same run)", partial(cnn.speedup, name)),
        Row(
            f"cnn.{name}.sqnr_db", "dB", "largest error, standard deviations of the logits", partial(cnn.sqnr_db, name)
        ),
        Row(f"cnn.{name}.agreement", "share", "float32", partial(cnn.agreement, name)),
    ]


ROWS = [
    *minilm.rows("minilm.int8", *_INT8),
    Row(
        "minilm.int8.speedup_vs_ort_dynamic",
        "x",
        "plain quantize_dynamic, per tensor, ms (same run)",
        partial(peers.speedup_vs_ort_dynamic, *_INT8),
    ),
    Row(
        "minilm.int8.speedup_vs_tuned_dynamic",
        "x",
        "the same file with our session option, ms (same run)",
        partial(peers.speedup_vs_tuned_dynamic, *_INT8),
    ),
    *readme_speeds.ROWS,
    *minilm.rows("minilm.int8_static", *_STATIC),
    Row(
        "minilm.batch_top10_difference",
        "share",
        "lowest overlap of all targets and kinds of text",
        batching.batch_top10_difference,
    ),
    *minilm.rows("minilm.int4", *_INT4),
    *minilm.rows("minilm.w4a8", "w4a8", "robot"),
    *minilm.rows("minilm.robot", "w4a8-static", "robot"),
    *minilm.rows("minilm.w4a8_dynamic", "w4a8-dynamic", "robot"),
    *minilm.rows("minilm.pruned", "prune-w4", "robot"),
    *(row for name in cnn.NETWORKS for row in _cnn_rows(name)),
    Row("cnn.mobile.drop", "points", "float32 accuracy of the network that drops most", cnn.worst_drop),
    Row(
        "cnn.mobile.speedup",
        "x",
        "float32 of the network that gains least, ms (1 thread, batch 1, same run)",
        cnn.worst_speedup,
    ),
    *layers.ROWS,
    *low_rank.ROWS,
    *passes.ROWS,
    *sums.ROWS,
    *resnet.ROWS,
    *two_processes.ROWS,
    *sparsify.ROWS,
    *arm64.ROWS,
    *cases.ROWS,
    *kill.ROWS,
    *gate_speed.ROWS,
    *faults.ROWS,
    *texten.ROWS,
    *fuzz.ROWS,
    *real.ROWS,
    *structure.ROWS,
    *sameness.ROWS,
    *bundles.ROWS,
    *installs.ROWS,
    *clients.ROWS,
    *decoding.ROWS,
    *large_models.ROWS,
    *kept_cache.ROWS,
    *device_latency.ROWS,
    *npu.ROWS,
    *runners.ROWS,
    *forecast.ROWS,
    *blocks.ROWS,
    Row("pipeline.cold_s", "s", "limit", times.cold),
    Row("pipeline.cold_ratio", "x", "optimum-cli export + quantize, s (same run)", peers.cold_ratio),
    Row(
        "pipeline.cold_ratio_with_reference",
        "x",
        "optimum-cli export + quantize, s (same run)",
        peers.cold_ratio_with_reference,
    ),
    Row("pipeline.warm_s", "s", "limit", times.warm),
    Row("pipeline.warm_before_measuring_s", "s", "limit", times.warm_before_measuring),
    Row("calibration.peak_mb_512", "MB", "at 8 samples", partial(times.calibration_memory, 512)),
    Row("calibration.images_peak_mb_5000", "MB", "at 512 images", times.calibration_memory_of_images),
    Row("calibration.memory_ratio", "x", "constant memory", times.calibration_memory_ratio),
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--id", help="measure only this row, or these that begin so")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already too")
    arguments = parser.parse_args()
    known = {row.id: row for row in ROWS}
    named = [row for row in ROWS if arguments.id and f"{row.id}.".startswith(f"{arguments.id}.")]
    if arguments.id is not None and not named:
        print(f"error: unknown row {arguments.id!r}\n  Allowed: {', '.join(known)}.", file=sys.stderr)
        return 2
    done = _read()
    publish(named or [row for row in ROWS if arguments.again or row.id not in done])
    return 0


def publish(rows: Sequence[Row]) -> None:
    """Measure rows, each of which is written as soon as it is known."""
    for row in rows:
        measured = row.measure()
        _write(_read() | {row.id: _record(row, measured)})
        print(
            f"{row.id:<34} {measured.value:9.4g} {row.unit}   ({row.reference}: {measured.reference:.4g})", flush=True
        )


def _read() -> dict[str, dict[str, object]]:
    if not RESULTS.is_file():
        return {}
    return {row["id"]: row for row in json.loads(RESULTS.read_text(encoding="utf-8"))}


def _write(rows: dict[str, dict[str, object]]) -> None:
    fresh = RESULTS.with_suffix(".new")
    fresh.write_text(pretty_json([rows[row.id] for row in ROWS if row.id in rows]), encoding="utf-8")
    os.replace(fresh, RESULTS)  # noqa: PTH105  # atomic


def _record(row: Row, measured: Measured) -> dict[str, object]:
    host = host_info()
    return {
        "id": row.id,
        "value": round(measured.value, 5),
        "unit": row.unit,
        "reference": row.reference,
        "reference_value": round(measured.reference, 5),
        "command": f"make bench ID={row.id}",
        "host": {"cpu": host.cpu, "cores": host.cores, "isa": list(host.isa), "versions": versions()},
    }


if __name__ == "__main__":
    sys.exit(main())
