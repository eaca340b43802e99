"""A latency that is estimated, from the command line."""

from __future__ import annotations

import json

from pipeline.config.loading import shipped


def test_a_bundle_has_an_estimated_latency_on_a_phone(edge, exported, workspace) -> None:  # type: ignore[no-untyped-def]
    """A tiny encoder is below all published rows, and 500 ms far above."""
    phone = (shipped("targets") / "phone.toml").read_text(encoding="utf-8")
    (workspace / "targets" / "quick-phone.toml").write_text("measure_seconds = 0.5\n" + phone, encoding="utf-8")
    done = edge("check", "out/bundle", "--target", "quick-phone", "--json")
    report = json.loads(done.stdout)
    rows = {row["metric"]: row for row in report["budgets"]}
    latency = rows["latency_p95_ms"]
    assert latency["verdict"] == "PASS"
    assert latency["figure"]["evidence"] == "estimated"
    assert 0 <= latency["figure"]["low"] < latency["figure"]["value"] < latency["figure"]["high"] < 500
    assert latency["reason"].startswith(
        "estimated; 90 % interval of published ONNX Runtime rows (Snapdragon 7 Gen 4 QRD, all cores)"
    )
    assert rows["max_power_w"]["figure"]["unit"] == "W"
