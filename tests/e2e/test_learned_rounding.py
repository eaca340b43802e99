"""A language model whose codes are learned, from its folder to a bundle, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixtures import LENIENT_TARGET, Edge
from language_models import save_language_model
from safetensors.numpy import load_file

from pipeline.graph.files import load_model
from pipeline.numerics.blocks import unpack_codes

RECIPE = """
title = "{rounding}"
[scheme]
base = "w4a8"
rounding = "{rounding}"
symmetric = false
{learning}
"""
LEARNING = """
[scheme.learning]
window = 12
batch = 4
epochs = {}
tuning_steps = 2
"""
WORDS = ("the", "old", "door", "sees", "red", "light", "while", "two", "small", "dogs", "run", "over", "water", "day")
BUDGET = """
[tasks.text-generation]
recipe = "w4a8"
shape = { sequence_length = 24, context_length = 64 }
[tasks.text-generation.budgets.max_kl_per_token]
limit = 0.5
required = true
evidence = ["host"]
source = "assumption: a test"
"""
FLAGS = ["--target", "asking", "--calibration-data", "learning.txt", "--eval-data", "held.txt"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, save_tokenizer: Callable[..., int]) -> Path:
    folder = tmp_path_factory.mktemp("language") / "tiny-llama"
    size = save_tokenizer(folder, model_input_names=["input_ids", "attention_mask"])
    return save_language_model(folder, "llama", size)


@pytest.fixture
def ask(edge: Edge, workspace: Path, llama: Path) -> Callable[..., tuple[int, str]]:
    """Exports with a rounding; the exit code and what was said."""
    for name, rows in (("learning", 60), ("held", 12)):
        drawn = np.random.default_rng(rows).choice(WORDS, (rows, 18))
        (workspace / f"{name}.txt").write_text("\n".join(" ".join(row) for row in drawn) + "\n")
    (workspace / "targets" / "asking.toml").write_text(LENIENT_TARGET + BUDGET)

    def exported(rounding: str, learning: str = "") -> tuple[int, str]:
        (workspace / f"{rounding}.toml").write_text(RECIPE.format(rounding=rounding, learning=learning))
        done = edge("export", str(llama), *FLAGS, "--recipe", f"{rounding}.toml", "--output", rounding)
        return done.returncode, done.stdout + done.stderr

    return exported


@pytest.mark.slow
def test_a_bundle_has_the_very_codes_that_were_learned(
    ask: Callable[..., tuple[int, str]], workspace: Path, store: Path
) -> None:
    code, said = ask("learned", LEARNING.format(4))
    assert code == 0, said
    assert "Codes were learned from" in said
    (file,) = store.glob("objects/*/learned.safetensors")
    learned = load_file(file)
    assert {name.rpartition(".")[2] for name in learned} == {"codes", "scales", "zero_points"}
    graph = load_model(workspace / "learned" / "bundle" / "model.onnx").graph
    for name, codes in learned.items():
        if name.endswith(".codes"):
            stored = graph.initializers[name].const_value
            assert stored is not None
            np.testing.assert_array_equal(unpack_codes(stored.numpy(), 4), codes)
    assert ask("nearest")[0] == 0
    losses = [_divergence(workspace / rounding) for rounding in ("learned", "nearest")]
    assert losses[0] < 0.9 * losses[1], losses


def _divergence(out: Path) -> float:
    budgets = json.loads((out / "report.json").read_text())["budgets"]
    (found,) = [budget["figure"]["value"] for budget in budgets if budget["metric"] == "max_kl_per_token"]
    return float(found)


PRUNED = """
[[passes]]
pass = "prune"
unit = "layers"
keep = [1]
samples = 16
"""


@pytest.mark.slow
def test_codes_are_learned_from_what_passes_left(ask: Callable[..., tuple[int, str]], workspace: Path) -> None:
    """They lose less to the smaller float model than codes of the larger one would, or rounding to the nearest."""
    losses = []
    for rounding, learning in (("learned", LEARNING.format(4)), ("nearest", "")):
        code, said = ask(rounding, learning + PRUNED)
        assert code == 1, said  # random weights that lost a layer say something else than the float model
        report = json.loads((workspace / rounding / "report.json").read_text())
        losses.append(report["quantization"]["scores"]["kl"])
    assert losses[0] < 0.9 * losses[1], losses


@pytest.mark.slow
def test_too_few_texts_are_refused(ask: Callable[..., tuple[int, str]]) -> None:
    code, said = ask("learned", "[scheme.learning]\nbatch = 64")
    assert code != 0
    assert "Learned rounding trains on batches of 64 windows of" in " ".join(said.split())
    assert "--calibration-data" in said
