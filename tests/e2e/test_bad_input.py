"""Every mistake gives one clear message, the right exit code and no traceback, and leaves older artifacts alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


def _copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_weights, "has no weights"),
        (_truncated, "is damaged: its header promises"),
        (_pickled, "has its weights only as a pickle (pytorch_model.bin)"),
    ],
)
def test_damaged_models(edge, tiny_encoder, tmp_path, damage, message) -> None:
    folder = _copy(tiny_encoder, tmp_path / "model")
    damage(folder)
    done = edge("export", "--model", str(folder), "--target", "lenient")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--target", "phon"], 2, "Unknown target 'phon'. Did you mean 'phone'"),
        (["--recipe", "w8a8-dynamik"], 2, "Unknown recipe 'w8a8-dynamik'. Did you mean 'w8a8-dynamic'"),
        (["--bogus"], 2, "No such option: --bogus"),
        (["--model", "no/such-model"], 3, "could not be fetched from the hub"),
        (["--model", "nothing"], 2, "There is no model 'nothing'"),
        (["--budget", "bundle_mb=-1"], 2, "budgets.bundle_mb.limit"),
        (["--budget", "bundle_mb=big"], 2, "is not METRIC=LIMIT"),
        (["--budget", "bundel_mb=1"], 2, "Unknown budget 'bundel_mb'."),
        (["--precision", "int5"], 2, "Unknown precision 'int5'."),
        (["--precision", "int8", "--recipe", "w4"], 2, "--precision int8 and --recipe w4 are given."),
        (["other"], 2, "Two models are given: 'other' and --model"),
        (["--opset", "11"], 2, "opset"),
        (["--block-size", "33"], 2, "block_size"),
        (["--task", "fill-mask"], 2, "Unknown task 'fill-mask'"),
        (["--calibration-samples", "999"], 2, "999"),
        (["--calibration-data", "nope.txt"], 2, "nope.txt"),
        (["--nodes-to-exclude", "zzz*"], 2, "matches no node"),
        (["--baseline", "none.json"], 2, "none.json"),
    ],
)
def test_bad_flags(edge, tiny, arguments, code, message) -> None:
    done = edge("export", *tiny, *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "empty"),
        ("latin.txt", b"caf\xe9\n" * 20, "UTF-8"),
        ("broken.jsonl", b'{"text": "a"}\n{"text": \n', "line 2"),
        ("data.parquet", b"PAR1", ".parquet"),
    ],
)
def test_bad_calibration_data(edge, tiny, workspace, name, content, message) -> None:
    (workspace / name).write_bytes(content)
    done = edge("export", *tiny, "--calibration-data", name)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_all_mistakes_of_a_target_are_reported_at_once(edge, tiny, workspace) -> None:
    path = workspace / "targets/lenient.toml"
    path.write_text(path.read_text().replace("memory_mb = 1000", 'memory_mb = "much"\nmemori = 1'))
    done = edge("export", *tiny)
    assert done.returncode == 2
    assert "device.memory_mb" in done.stderr
    assert "device.memori: unknown key. Did you mean 'memory_mb'?" in done.stderr


def test_an_output_folder_with_foreign_files_is_refused(edge, tiny, workspace) -> None:
    (workspace / "out").mkdir()
    (workspace / "out/thesis.txt").write_text("years of work")
    done = edge("export", *tiny)
    assert done.returncode == 2
    assert "holds 'thesis.txt'" in done.stderr
    assert (workspace / "out/thesis.txt").read_text() == "years of work"


def test_a_failed_export_leaves_the_older_one(edge, tiny, exported, workspace) -> None:
    before = (workspace / "out/report.json").read_bytes()
    assert edge("export", *tiny, "--nodes-to-exclude", "zzz*").returncode == 2
    assert (workspace / "out/report.json").read_bytes() == before


def test_a_damaged_bundle_is_refused(edge, exported, workspace) -> None:
    (workspace / "out/bundle/metadata.json").write_text(json.dumps({}))
    done = edge("check", "out/bundle", "--target", "lenient")
    assert done.returncode == 2
    assert "is damaged: metadata.json was changed" in done.stderr
