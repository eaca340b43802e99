"""Figures that somebody brings in a file, and what they prove."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_bundle import rewritten, write_bundle

from pipeline.bundle.manifest import read_manifest
from pipeline.checks.device_kit import write_kit
from pipeline.checks.device_report import UNATTESTED, read_device_report
from pipeline.config.loading import load_target
from pipeline.config.target import Target
from pipeline.core.errors import UsageError
from pipeline.core.types import Evidence

PRINTED = """\
Setting intra_op_num_threads to 1
Session creation time cost: 0.0102016 s
First inference time cost: 2 ms
Total inference time cost: 0.185739 s
Total inference requests: 100
Average inference time cost{total}: 1.85739 ms
Number of inferences per second: 538.184
Peak working set size: 36696064 bytes
"""
PERCENTILES = "P50 Latency: 0.00185674 s\nP90 Latency: 0.00187215 s\nP95 Latency: 0.00187393 s\n"
SUMMARY = {"estimated_inference_time": 127, "all_inference_times": [127, 129, 1087], "warm_load_time": 198597}


PHONE = load_target("phone").model_copy(update={"measure_seconds": 1.0})


@dataclass
class Measured:
    """A bundle, and what the worker wrote of it on this machine, by the command of the kit."""

    bundle: Path
    report: Path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    place = tmp_path_factory.mktemp("measured")
    bundle, kit = write_bundle(place / "bundle"), place / "kit"
    write_kit(bundle, PHONE, kit)
    command = [sys.executable, "worker.py", "request.json", "report.json"]
    done = subprocess.run(command, check=True, cwd=kit, capture_output=True, text=True)
    assert done.stdout == f"Written: {kit / 'report.json'}\n"
    assert done.stderr.splitlines()[-1] == "6 of 6: memory"
    return Measured(bundle, kit / "report.json")


@pytest.fixture
def bundle(measured: Measured, tmp_path: Path) -> Path:
    return Path(shutil.copytree(measured.bundle, tmp_path / "bundle"))


@pytest.fixture
def report(measured: Measured, tmp_path: Path) -> Path:
    return Path(shutil.copy(measured.report, tmp_path))


@pytest.fixture
def phone() -> Target:
    return PHONE


def test_the_kit_measures_what_the_bundle_is(report: Path, bundle: Path, phone: Target) -> None:
    told = read_device_report(report, bundle, phone)
    assert set(told.figures) >= {"latency_p50_ms", "latency_p95_ms", "load_ms"}
    latency = told.figures["latency_p95_ms"]
    assert (latency.unit, latency.evidence) == ("ms", Evidence.DEVICE)
    assert latency.doubt is None or latency.doubt.why != UNATTESTED
    assert latency.note.split("; ")[-1].startswith("report.json of 20")
    (note,) = told.notes
    assert "the files that it measured are the bundle's" in note


def changed(report: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    data = json.loads(report.read_text())
    change(data)
    place = report.with_name("changed.json")
    place.write_text(json.dumps(data))
    return place


def test_a_report_of_another_bundle_is_an_error(report: Path, bundle: Path, phone: Target) -> None:
    other = changed(report, lambda data: data.update(bundle="0" * 64))
    with pytest.raises(UsageError) as caught:
        read_device_report(other, bundle, phone)
    own = read_manifest(bundle)["digest"][:12]
    assert caught.value.message == (
        f"changed.json is of another bundle (its digest begins with 000000000000, this one's with {own})."
    )
    swapped = changed(report, lambda data: data["files"].update(dict.fromkeys(data["files"], "1" * 64)))
    with pytest.raises(UsageError, match=r", or its files were changed on the way\.\n"):
        read_device_report(swapped, bundle, phone)


def test_a_bundle_that_changed_since_is_another(report: Path, bundle: Path, phone: Target) -> None:
    rewritten(bundle, "metadata.json", lambda data: {**data, "model": "other"})
    with pytest.raises(UsageError, match=r"^report\.json is of another bundle "):
        read_device_report(report, bundle, phone)


def test_what_was_measured_otherwise_than_the_target_asks_is_refused(report: Path, bundle: Path, phone: Target) -> None:
    with pytest.raises(UsageError, match=r"with 4 threads; the target phone measures on .* with 1\.\n"):
        read_device_report(changed(report, lambda data: data.update(threads=4)), bundle, phone)


def test_a_clock_that_stepped_is_told(report: Path, bundle: Path, phone: Target) -> None:
    told = read_device_report(changed(report, lambda data: data.update(stepped=-7200.2)), bundle, phone)
    assert told.notes[1].startswith("The clock of that device stepped by -7200 s meanwhile: ")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(more=1),
        lambda data: data.pop("machine"),
        lambda data: data["results"].clear(),
        lambda data: data["results"][0]["result"]["blocks"][0]["wall_ms"].append([-1.0]),
        lambda data: data["results"][0]["result"]["blocks"][0]["wall_ms"].append(["1"]),
        lambda data: data["results"][0]["result"]["blocks"][0]["wall_ms"].clear(),
        lambda data: data["results"][0]["result"]["blocks"][0]["cpu_ms"].pop(),
        lambda data: data["results"][0]["result"]["blocks"][0].update(cpu_time=[{"stat": "cpu x", "own": 0}, None]),
        lambda data: data["results"][0].update(mode="memory"),
        lambda data: data.update(date="yesterday"),
        lambda data: data.update(files={}),
        lambda data: data["machine"].update(cores=0),
    ],
)
def test_a_report_is_not_trusted(report: Path, bundle: Path, phone: Target, change: Any) -> None:
    with pytest.raises(UsageError, match=r"^changed\.json is no report that can be used: "):
        read_device_report(changed(report, change), bundle, phone)


def test_ai_hub_gives_its_own_times_and_proves_no_bundle(bundle: Path, phone: Target, tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"execution_summary": SUMMARY, "execution_detail": [{"compute_unit": "NPU"}]}))
    os.utime(path, (0, 0))
    told = read_device_report(path, bundle, phone)
    p50, load = told.figures["latency_p50_ms"], told.figures["load_ms"]
    assert (p50.value, p50.note) == (0.129, "3 runs; job.json, a profile job of AI Hub, a file of 1970-01-01")
    assert p50.doubt is not None and p50.doubt.covers(1e9) and p50.doubt.why == UNATTESTED
    assert load.value == pytest.approx(198.597)
    assert told.notes[0].startswith(
        "Latency comes from job.json, a profile job of AI Hub, a file of 1970-01-01. It is "
    )
    path.write_text(json.dumps({"execution_summary": {"estimated_inference_time": 127}}))
    assert read_device_report(path, bundle, phone).figures["latency_p50_ms"].value == 0.127


@pytest.mark.parametrize("total", ["", " total"])
def test_what_perf_test_prints(bundle: Path, phone: Target, tmp_path: Path, total: str) -> None:
    path = tmp_path / "printed.txt"
    path.write_text(PRINTED.format(total=total) + PERCENTILES)
    figures = read_device_report(path, bundle, phone).figures
    assert {name: figure.value for name, figure in figures.items()} == {
        "latency_p50_ms": pytest.approx(1.85674),
        "latency_p95_ms": pytest.approx(1.87393),
        "load_ms": pytest.approx(10.2016),
    }
    path.write_text(PRINTED.format(total=total))
    average = read_device_report(path, bundle, phone).figures["latency_p50_ms"]
    assert (average.value, average.note.split("; ")[0]) == (1.85739, "average of 100 runs, not their median")


@pytest.mark.parametrize("content", ["", "hello", "[1]", '{"latency": 3}', '{"execution_summary": 3}', "{"])
def test_anything_else_is_refused(bundle: Path, phone: Target, tmp_path: Path, content: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"^odd\.json "):
        read_device_report(path, bundle, phone)
