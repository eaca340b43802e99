"""Checkpoints that are quantized already, from the command line to a bundle with the very same codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from coded_checkpoints import GPTQ, gptq, pack_folder
from fixtures import LENIENT_TARGET, Edge
from language_models import save_language_model
from numpy.typing import NDArray

from pipeline.graph.files import load_model
from pipeline.numerics.blocks import unpack_codes

TARGET = (
    LENIENT_TARGET
    + """
[tasks.text-generation]
recipe = "w8"
shape = { sequence_length = 24, context_length = 64 }

[tasks.text-generation.budgets.max_kl_per_token]
limit = 1e-3
required = true
evidence = ["host"]
source = "assumption: what the checkpoint has in float is stored in 8 bits"
"""
)


@pytest.fixture
def quantized(workspace: Path, save_tokenizer: Callable[..., int]) -> tuple[Path, dict[str, NDArray[np.float32]]]:
    """A small Llama whose projections GPTQ has in codes, each with its inputs in an order of its own."""
    folder = workspace / "tiny-gptq"
    size = save_tokenizer(folder, model_input_names=["input_ids", "attention_mask"])
    save_language_model(folder, "llama", size)
    (workspace / "targets" / "short.toml").write_text(TARGET)
    order = np.random.default_rng(0).permutation
    return folder, pack_folder(
        folder, GPTQ, lambda outputs, inputs, seed: gptq(outputs, inputs, seed, group_of=order(inputs) // 32)
    )


def columns_of(bundle: Path, product: str) -> NDArray[np.float32]:
    """What the stored form of a product stands for, [inputs, outputs]."""
    stored = {name: value.const_value for name, value in load_model(bundle / "model.onnx").graph.initializers.items()}
    parts = {part: stored[f"{product}.{part}"] for part in ("codes", "scales", "zero_points", "order")}
    codes, scales, zeros, order = (part.numpy() for part in parts.values() if part is not None)
    steps = unpack_codes(codes, 4).astype(np.float32) - unpack_codes(zeros, 4)[:, : scales.shape[1], None]
    rows = (steps * scales.astype(np.float32)[..., None]).reshape(len(codes), -1)
    return rows[:, np.argsort(order)].T


@pytest.mark.slow
def test_codes_are_those_of_the_checkpoint(
    edge: Edge, workspace: Path, quantized: tuple[Path, dict[str, NDArray[np.float32]]]
) -> None:
    folder, weights = quantized
    done = edge(
        *("export", folder.name, "--target", "short", "-o", "out"),
        *("--calibration-data", "calibration.txt", "--eval-data", "evaluation.txt"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The checkpoint is quantized already (GPTQ; 14 x 4 bits in groups of 32)" in " ".join(done.stdout.split())
    bundle = workspace / "out" / "bundle"
    for name in ("layers.0.mlp.down_proj", "layers.1.self_attn.o_proj"):
        np.testing.assert_array_equal(columns_of(bundle, f"{name}.weight"), weights[f"model.{name}.weight"].T)
    assert "quantization_config" not in json.loads((bundle / "config.json").read_text())
    assert edge("verify", str(bundle)).returncode == 0


@pytest.mark.parametrize(
    ("recipe", "what"),
    [
        ('title = "t"\nscheme = "w4"\n[[passes]]\ntype = "sparsify"\n', "compression passes"),
        ('title = "t"\n[scheme]\nbase = "w8a8"\nsmoothing = 0.5\n', "smoothing (alpha 0.5)"),
    ],
)
def test_what_changes_weights_is_refused(
    recipe: str, what: str, edge: Edge, workspace: Path, quantized: tuple[Path, dict[str, NDArray[np.float32]]]
) -> None:
    (workspace / "changing.toml").write_text(recipe)
    done = edge("export", quantized[0].name, "--target", "short", "--recipe", "changing.toml")
    assert done.returncode == 2, done.stdout + done.stderr
    said = " ".join(done.stderr.split())
    assert what in said
    assert "its checkpoint is quantized already, and these codes could not be kept." in said
