"""A language model that counts as large, from the command line: its float weights are mapped, GPTQ goes by segments,
and what is left out is said."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import LENIENT_TARGET, environment
from language_models import save_language_model

TARGET = """
[tasks.text-generation]
recipe = "w4a8-language"
shape = { sequence_length = 24, context_length = 64 }

[tasks.text-generation.budgets.max_kl_per_token]
limit = 0.5
required = true
evidence = ["host"]
source = "assumption: a test"

[tasks.text-generation.budgets.max_repetition_increase]
limit = 100
required = false
evidence = ["host"]
source = "assumption: a test"
"""
COMMAND = """
import sys
import pipeline.quantize.segmented as segmented
import pipeline.quantize.shards as shards
import pipeline.runtime.session as session
from pipeline.cli.main import entry
session._LARGE, segmented._MOST, shards.SIZE = 1000, 1000, 1000
sys.exit(entry())
"""


@pytest.mark.slow
def test_it_becomes_a_bundle_and_the_report_says_what_was_not_tried(
    workspace: Path, tmp_path: Path, save_tokenizer: Callable[..., int]
) -> None:
    folder = tmp_path / "llama"
    save_language_model(folder, "llama", save_tokenizer(folder, model_input_names=["input_ids", "attention_mask"]))
    (workspace / "targets" / "language.toml").write_text(LENIENT_TARGET + TARGET)
    flags = ["--target", "language", "--calibration-data", "calibration.txt", "--eval-data", "evaluation.txt"]
    store = tmp_path / "store"
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "export", str(folder), *flags, "--cache", "8", "--output", "large"],
        cwd=workspace,
        env=environment(EDGE_STORE=str(store)),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "large" / "report.json").read_text())
    verdicts = {entry["metric"]: entry for entry in report["budgets"]}
    assert verdicts["max_kl_per_token"]["verdict"] == "PASS"
    assert verdicts["max_repetition_increase"]["verdict"] == "PASS"
    assert report["texts"]["texts"] > 0
    notes = " ".join(report["notes"])
    assert "Nobody tried whether a budget can fail: a copy of the float model with destroyed weights" in notes
    assert "The float model is not timed, and nothing is said of the speed-up over it" in notes
    assert len(list(store.glob("objects/*/hessians-*.safetensors"))) > 1
    assert len(list(store.glob("objects/*/codes-*.safetensors"))) > 1
