"""Measuring elsewhere, from the command line: a board behind ssh, and a report that was carried here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sshd
from fixtures import Edge


@pytest.fixture
def board(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = sshd.start(tmp_path_factory.mktemp("sshd"))
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    yield server.runner
    server.stop()


@pytest.mark.slow
def test_a_bundle_is_measured_on_a_board(edge: Edge, exported: str, workspace: Path, board: str) -> None:
    arguments = ("check", "out/bundle", "--target", "lenient", "--output", "there")
    done = edge(*arguments, "--runner", board)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "there/report.json").read_text())
    evidence = {name: figure["evidence"] for name, figure in report["figures"].items()}
    assert {evidence[name] for name in ("latency_p95_ms", "load_ms", "max_accuracy_drop")} == {"device"}
    assert evidence["bundle_mb"] == "host"
    golden = next(one for one in report["budgets"] if one["metric"] == "min_golden_match")
    assert (golden["verdict"], golden["figure"]["evidence"], golden["figure"]["value"]) == ("PASS", "device", 1.0)
    accuracy = [result["drop"] for result in report["accuracy"]]
    assert accuracy == [
        result["drop"] for result in json.loads((workspace / "out/report.json").read_text())["accuracy"]
    ]
    refused = edge(*arguments, "--runner", "ssh:b;touch pwned")
    assert (refused.returncode, "'b;touch pwned' is no place that ssh reaches." in refused.stderr) == (2, True)


@pytest.mark.slow
def test_figures_from_elsewhere_count_only_for_the_bundle_that_they_name(
    edge: Edge, exported: str, workspace: Path
) -> None:
    (workspace / "job.json").write_text('{"execution_summary": {"estimated_inference_time": 900}}')
    done = edge("check", "out/bundle", "--target", "lenient", "--output", "here", "--device-report", "job.json")
    assert done.returncode == 0, done.stdout + done.stderr
    budgets = {one["metric"]: one for one in json.loads((workspace / "here/report.json").read_text())["budgets"]}
    latency = budgets["latency_p95_ms"]
    assert (latency["verdict"], latency["figure"]["value"]) == ("NOT_MEASURED", 0.9)
    assert latency["reason"] == "the report does not say which bundle it measured (unattested)"
    (workspace / "odd.json").write_text("{}")
    odd = edge("check", "out/bundle", "--target", "lenient", "--device-report", "odd.json")
    assert odd.returncode == 2
    assert "odd.json is no report of a device that is known here." in odd.stderr


@pytest.mark.slow
def test_an_export_and_a_comparison_are_measured_on_a_board(
    edge: Edge, small: list[str], workspace: Path, board: str
) -> None:
    done = edge("export", *small, "--runner", board)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    assert "answers" not in [stage["name"] for stage in report["stages"]]
    assert {report["figures"][name]["evidence"] for name in ("latency_p95_ms", "min_agreement")} == {"device"}
    assert f"edge check out/bundle --target lenient --runner {board}" in done.stdout
    compared = edge("compare", *small, "--runner", board, "--against", "w8a8", "--output", "there", "--json")
    assert compared.returncode == 0, compared.stderr
    latencies = {one["label"]: one["latency"]["evidence"] for one in json.loads(compared.stdout)["candidates"]}
    assert set(latencies.values()) == {"device"}
    again = edge("check", "out/bundle", "--target", "lenient", "--output", "here")
    assert again.returncode == 0
    assert json.loads((workspace / "here/report.json").read_text())["comparison"] is None  # it was made elsewhere
