"""Recovery by distillation from the command line: to a checked bundle, after kill -9, and on two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import ROOT, command, environment

RECIPE = """
title = "One of two layers, recovered"
scheme = "w8a8-dynamic"

[[passes]]
pass = "prune"
unit = "layers"
keep = [1]

[[passes]]
pass = "distill"
data = ["training.txt"]
held_out = 0.1
steps = {steps}
batch_size = 16
checkpoint_every = 2
judge_samples = 16
"""


@pytest.fixture
def recipe(workspace: Path) -> list[str]:
    words = [f"the {noun} {verb} a {other}" for noun in ["dog", "cat", "man", "car"] for verb in ["sees", "wants"]
             for other in ["house", "river", "room", "road", "door", "light", "year"]]  # fmt: skip
    texts = [f"{sentence} {number}" for sentence in words for number in range(5)]
    (workspace / "training.txt").write_text("\n".join(texts) + "\n")
    (workspace / "recover.toml").write_text(RECIPE.format(steps=6))
    (workspace / "long.toml").write_text(RECIPE.format(steps=60))
    return ["--recipe", "recover.toml"]


def trained(folder: Path) -> dict:
    report = json.loads((folder / "report.json").read_text())
    return next(step for step in report["passes"] if step["pass"] == "distill")  # noqa: S105


def test_recovery_from_the_command_line(edge, tiny, recipe, workspace) -> None:
    done = edge("export", *tiny, *recipe)
    assert done.returncode == 0, done.stderr
    facts = trained(workspace / "out")
    assert (facts["steps"], facts["samples"], facts["teacher"]) == (6, 252, "the model before all passes")
    page = (workspace / "out/report.html").read_text()
    assert "Training: losses" in page
    assert "Training: held-out scores" in page
    again = edge("export", *tiny, *recipe, "--dry-run", "--json")
    assert {row["state"] for row in json.loads(again.stdout)} == {"cached"}


def test_other_training_data_train_anew(edge, tiny, recipe, workspace) -> None:
    (workspace / "other.txt").write_text("\n".join(f"a robot sees room {n}" for n in range(200)) + "\n")
    rows = edge("export", *tiny, *recipe, "--training-data", "other.txt", "--dry-run", "--json")
    states = {row["stage"]: row["state"] for row in json.loads(rows.stdout)}
    assert states["samples.training.1"] == states["compress.1.distill"] == "run"


@pytest.mark.slow
def test_a_teacher_is_asked_once_for_all_students(edge, tiny, recipe, workspace) -> None:
    cached = "cache_teacher = true\nlosses = { embedding_cosine = 1.0 }"
    (workspace / "recover.toml").write_text(RECIPE.format(steps=6) + cached)
    done = edge("export", *tiny, *recipe)
    assert done.returncode == 0, done.stderr
    assert "record the teacher's outputs" in done.stderr
    (workspace / "other.toml").write_text(RECIPE.format(steps=4).replace("keep = [1]", "keep = [0]") + cached)
    rows = json.loads(edge("export", *tiny, "--recipe", "other.toml", "--dry-run", "--json").stdout)
    states = {row["stage"]: row["state"] for row in rows}
    assert (states["teacher.1"], states["compress.1.distill"]) == ("cached", "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('data = ["training.txt"]', 'data = ["gone.txt"]'), "There is no data set 'gone.txt'"),
        (("held_out = 0.1", "held_out = 0.01"), "held_out = 0.01 of 280 training samples are 3 to judge by"),
        (("steps = 6", "steps = 6\nteacher = 'nowhere'"), "nowhere"),
        (("steps = 6", "steps = 6\ncache_teacher = true"), "pass 2 of recipe recover has cache_teacher = true, but"),
        (("steps = 6", "steps = 6\nfreeze = ['words.*']"), "'words.*' in freeze matches no parameter"),
    ],
)
def test_mistakes_are_one_message(edge, tiny, recipe, workspace, change, message) -> None:
    text = (workspace / "recover.toml").read_text()
    assert change[0] in text
    (workspace / "recover.toml").write_text(text.replace(*change))
    done = edge("export", *tiny, *recipe)
    assert done.returncode in {2, 3}
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bytes(edge, tiny, recipe, workspace, tmp_path) -> None:
    """kill -9 after a checkpoint; the same command then gives the bundle that an undisturbed run gives."""
    store = tmp_path / "killed"
    arguments = ["export", *tiny, "--recipe", "long.toml"]
    process = subprocess.Popen(command(*arguments), cwd=workspace, env=environment(EDGE_STORE=str(store)),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
    end = time.monotonic() + 120
    while not list(store.glob("scratch/*/training.safetensors")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, "no checkpoint was written"
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    process.communicate(timeout=60)
    assert list(store.glob("scratch/*/training.safetensors")), "it was killed too late"
    assert edge(*arguments, "--store", str(store)).returncode == 0
    after_kill = (workspace / "out/bundle/model.onnx").read_bytes()
    assert edge(*arguments).returncode == 0
    assert (workspace / "out/bundle/model.onnx").read_bytes() == after_kill


@pytest.mark.slow
def test_two_processes_train_as_one(edge, tiny, recipe, workspace, tmp_path) -> None:
    """At an equal global batch the loss curves agree, and only the first process reports."""
    assert edge("export", *tiny, *recipe).returncode == 0
    alone = trained(workspace / "out")
    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    launch = [sys.executable, "-m", "accelerate.commands.launch", *flags.split(), "-m", "pipeline"]
    variables = environment(EDGE_STORE=str(tmp_path / "two"), OMP_NUM_THREADS="1")
    done = subprocess.run([*launch, "export", *tiny, *recipe], cwd=workspace, env=variables, timeout=300,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Bundle and reports:") == 1
    together = trained(workspace / "out")
    assert (alone["processes"], together["processes"]) == (1, 2)
    for left, right in zip(alone["curve"], together["curve"], strict=True):
        assert left["loss"] == pytest.approx(right["loss"], abs=1e-3)
    assert str(ROOT) not in (workspace / "out/report.json").read_text()
