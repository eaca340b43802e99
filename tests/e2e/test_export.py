"""Whole exports from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnxruntime as ort
import pytest

from pipeline import verify


def test_export_leaves_a_bundle_reports_and_a_verdict(exported, workspace) -> None:
    assert "PASS" in exported
    assert "Bundle and reports: out" in exported
    assert {path.name for path in (workspace / "out").iterdir()} == {
        "bundle",
        "reference",
        "report.json",
        "report.html",
        "junit.xml",
    }
    report = json.loads((workspace / "out/report.json").read_text())
    assert report["verdict"] == "PASS"
    assert {figure["evidence"] for figure in report["figures"].values()} == {"host"}
    cases = ElementTree.parse(workspace / "out/junit.xml").findall(".//testcase")
    assert [case.get("name") for case in cases] == [budget["metric"] for budget in report["budgets"]]
    assert verify(workspace / "out/bundle") < 1e-6


def test_the_bundle_gives_the_embedding_itself(exported, workspace) -> None:
    session = ort.InferenceSession(workspace / "out/bundle/model.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["sentence_embedding"]
    ids = np.ones((3, 7), np.int64)  # batch and length are dynamic
    feed = {entry.name: ids for entry in session.get_inputs()}
    (embedding,) = session.run(None, feed)
    assert embedding.shape == (3, 32)
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


def test_a_second_export_reuses_every_stage(edge, tiny, exported) -> None:
    done = edge("export", *tiny, "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)  # which is all there is on standard output
    assert report["target"] == "lenient"
    assert all(stage["cached"] for stage in report["stages"])
    dry = edge("export", *tiny, "--dry-run", "--json")
    assert {row["state"] for row in json.loads(dry.stdout)} == {"cached"}


@pytest.mark.parametrize(
    "recipe", ["w8a8", *(pytest.param(name, marks=pytest.mark.slow) for name in ("w4", "fp32", "w8a8-dynamic"))]
)
def test_same_inputs_give_the_same_bytes(edge, tiny, workspace, recipe, second_store) -> None:
    """Two stores, so that nothing is copied from the first run to the second."""
    edge("export", *tiny, "--recipe", recipe)
    first = (workspace / "out/bundle/manifest.json").read_bytes()
    done = edge("export", *tiny, "--recipe", recipe, "--store", str(second_store), fresh=True)
    assert done.returncode == 0, done.stderr
    assert (workspace / "out/bundle/manifest.json").read_bytes() == first


def test_pruning_is_recorded_and_makes_the_bundle_smaller(edge, tiny, workspace) -> None:
    (workspace / "recipes").mkdir()
    (workspace / "recipes/cut.toml").write_text(
        'title = "Half"\nscheme = "fp32"\n[[passes]]\npass = "prune"\nratio = 0.5\nround_to = 16\n'
    )
    edge("export", *tiny, "--recipe", "fp32")
    before = json.loads((workspace / "out/report.json").read_text())["figures"]["bundle_mb"]["value"]
    done = edge("export", *tiny, "--recipe", "cut")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    assert report["passes"][0]["neurons_after"] == 2 * 64
    assert any(note.startswith("Not compared with plain quantization yet") for note in report["notes"])
    assert report["figures"]["bundle_mb"]["value"] < before


@pytest.mark.slow
def test_heads_and_neurons_are_pruned_by_passes_in_a_row(edge, tiny, workspace) -> None:
    (workspace / "recipes").mkdir()
    (workspace / "recipes/narrow.toml").write_text(
        'title = "Heads, then neurons"\nscheme = "w8a8-dynamic"\n'
        '[[passes]]\npass = "prune"\nunit = "heads"\nimportance = "taylor"\nratio = 0.5\n'
        '[[passes]]\npass = "prune"\nimportance = "taylor"\nratio = 0.25\n'
    )
    done = edge("export", *tiny, "--recipe", "narrow")
    assert done.returncode == 0, done.stderr
    heads, neurons = json.loads((workspace / "out/report.json").read_text())["passes"]
    assert (heads["heads_before"], heads["heads_after"]) == (4, 2)
    assert (neurons["neurons_before"], neurons["neurons_after"]) == (256, 192)
    assert neurons["metric_before"] == heads["metric_after"]


def test_gate_checks_again_without_rebuilding(edge, exported, workspace) -> None:
    manifest = (workspace / "out/bundle/manifest.json").read_bytes()
    done = edge("gate", "--target", "lenient", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert (workspace / "out/bundle/manifest.json").read_bytes() == manifest
    assert json.loads((workspace / "out/report.json").read_text())["stages"] == []


def test_gate_without_the_float_reference_is_not_measured(edge, exported, workspace, tmp_path) -> None:
    shutil.rmtree(workspace / "out/reference")
    done = edge("gate", "--target", "lenient", "--output", "out", "--store", str(tmp_path / "empty"))
    assert done.returncode == 4
    assert "the float reference is neither in the store nor in reference/" in done.stdout


def test_a_failed_budget_says_what_dominates_it(edge, tiny) -> None:
    done = edge("export", *tiny, "--budget", "bundle_mb=0.01")
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert "embeddings" in done.stdout


def test_a_regression_against_a_baseline_fails(edge, tiny, exported, workspace) -> None:
    shutil.copy(workspace / "out/report.json", workspace / "before.json")
    same = edge("export", *tiny, "--baseline", "before.json")
    assert "baseline.bundle_mb" in same.stdout
    worse = edge("export", *tiny, "--recipe", "fp32", "--baseline", "before.json")
    assert worse.returncode == 1
    alone = edge("check", "out/bundle", "--target", "lenient", "--tolerance", "bundle_mb=1")
    assert (alone.returncode, alone.stderr.splitlines()[0]) == (2, "error: Tolerances are given without a baseline.")
    set_here = edge(
        "check", "out/bundle", "--target", "lenient", "--baseline", "before.json", "--tolerance", "bundle_mb=9"
    )
    assert "baseline.bundle_mb" in set_here.stdout


def test_a_bundle_takes_turns_with_an_earlier_one(edge, tiny, exported, workspace) -> None:
    shutil.copytree(workspace / "out/bundle", workspace / "before")
    limit = "min_previous_speedup=0.001"  # which no noise reaches
    arguments = ("check", "out/bundle", "--target", "lenient", "--output", "turns", "--previous", "before")
    done = edge(*arguments, "--budget", limit)
    assert done.returncode == 0, done.stdout + done.stderr
    budgets = {one["metric"]: one for one in json.loads((workspace / "turns/report.json").read_text())["budgets"]}
    speed = budgets["min_previous_speedup"]
    assert (speed["verdict"], speed["required"], speed["limit"]) == ("PASS", True, 0.001)
    assert speed["figure"]["note"].startswith("against the bundle before; ")
    slower = edge(*arguments, "--budget", "min_previous_speedup=1000")
    assert (slower.returncode, "FAIL min_previous_speedup" in slower.stdout) == (1, True), slower.stdout
    described = json.loads((workspace / "before/metadata.json").read_text())
    described["graphs"][0]["inputs"].pop()
    (workspace / "before/metadata.json").write_text(json.dumps(described))
    damaged = edge(*arguments)
    assert (damaged.returncode, "metadata.json was changed" in damaged.stderr) == (2, True), damaged.stderr


def test_random_calibration_is_said_in_the_report(edge, tiny, workspace) -> None:
    done = edge("export", *tiny, "--random-calibration")
    assert done.returncode == 0, done.stderr
    notes = json.loads((workspace / "out/report.json").read_text())["notes"]
    assert "Calibrated on random tensors (--random-calibration): accuracy will suffer." in notes


def test_excluded_nodes_stay_in_float_and_are_listed(edge, tiny, workspace) -> None:
    done = edge("export", *tiny, "--nodes-to-exclude", "embeddings.word_embeddings/*")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    left = {entry["name"]: entry["reason"] for entry in report["coverage"]["left_in_float"]}
    assert left.pop("embeddings.word_embeddings.weight") == "excluded by name"
    assert {reason.partition(" values")[2] for reason in left.values()} == {
        ": less than its scales and extra nodes would cost"
    }


def test_an_architecture_without_an_adapter_names_the_tasks(edge, tiny, tiny_bert, tmp_path) -> None:
    folder = tmp_path / "filler"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    done = edge("export", "--model", str(folder), "--target", "lenient")
    assert done.returncode == 2
    assert "Name it with --task. Allowed: feature-extraction, text-classification" in done.stderr


def test_inspect_lists_files_and_operators(edge, exported) -> None:
    done = edge("inspect", "out/bundle")
    assert done.returncode == 0
    assert "DynamicQuantizeLinear" in done.stdout
    assert "sentence_embedding" in done.stdout


def test_clean_bounds_the_store(edge, small, workspace, tmp_path) -> None:
    place = str(tmp_path / "store")
    edge("export", *small, "--store", place)
    done = edge("clean", "--store", place, "--max-size", "0")
    assert done.returncode == 0
    assert "0.0 MB are left" in done.stdout
    assert Path(workspace / "out/bundle/model.onnx").is_file()


@pytest.mark.slow
def test_tune_writes_what_it_measured_into_the_target(edge, tiny, workspace) -> None:
    edge("export", *tiny)
    done = edge("tune", "--target", "lenient", "--output", "out", "--write")
    assert done.returncode == 0, done.stderr
    assert "DynamicQuantizeMatMulFusion" in done.stdout
    assert "Written to" in done.stdout
    assert "edge tune on" in (workspace / "targets/lenient.toml").read_text()
    assert edge("export", *tiny, "--dry-run").returncode == 0


@pytest.mark.parametrize(("recipe", "operator"), [("fp16", "MatMul"), ("w8", "MatMulNBits"), ("w4a8", "MatMulNBits")])
def test_weight_only_recipes_run(edge, tiny, workspace, recipe, operator) -> None:
    done = edge("export", *tiny, "--recipe", recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    assert report["scheme"]["name"] == recipe
    assert operator in {entry["op_type"] for entry in report["operators"]}
