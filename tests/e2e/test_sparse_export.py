"""Sparse models from the command line to a checked bundle whose zeros are still there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline import verify
from pipeline.numerics.blocks import unpack_codes

SPARSE_W4 = """
title = "2:4, then 4-bit weights rounded with GPTQ"
scheme = "w4"
[[passes]]
pass = "sparsify"
pattern = "2:4"
ignore = ["pooler*"]
"""
SPARSE_CONV = """
title = "A sparse classifier of small images, static INT8"
scheme = "w8a8"
task = "image-classification"
calibration = { samples = 16 }
[inputs.input]
shape = ["batch", 8, 16, 16]
[[passes]]
pass = "sparsify"
method = "wanda"
sparsity = 0.6
"""
FACTORY = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    body = [nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=2), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(400, 64), nn.ReLU(), nn.Linear(64, 5))
"""
RECOVERED = """
title = "Sparser step by step, with training in between"
scheme = "w8a8-dynamic"
[[passes]]
pass = "sparsify"
sparsity = 0.5
[[passes]]
pass = "distill"
steps = 4
batch_size = 8
held_out = 0.5
learning_rate = 0.01
[[passes]]
pass = "sparsify"
method = "magnitude"
sparsity = 0.7
[[passes]]
pass = "distill"
steps = 4
batch_size = 8
held_out = 0.5
learning_rate = 0.01
"""


def recipe(workspace: Path, text: str) -> str:
    (workspace / "recipes").mkdir()
    (workspace / "recipes/sparse.toml").write_text(text)
    return "sparse"


def stored(workspace: Path) -> dict[str, np.ndarray]:
    model = onnx.load(workspace / "out/bundle/model.onnx")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def report(workspace: Path) -> dict:
    return json.loads((workspace / "out/report.json").read_text())


@pytest.mark.slow
def test_two_of_four_survives_gptq_at_four_bits(edge, tiny, workspace) -> None:
    done = edge("export", *tiny, "--recipe", recipe(workspace, SPARSE_W4))
    assert done.returncode == 0, done.stderr
    packed = [codes for codes in stored(workspace).values() if codes.dtype == np.uint8 and codes.ndim == 3]
    assert len(packed) == 4  # two products of each FFN; attention's are too small to be rounded
    for codes in packed:
        zeros = unpack_codes(codes, 4).reshape(len(codes), -1, 4) == 8
        assert (zeros.sum(-1) >= 2).all()
        assert zeros.mean() < 0.65
    assert "50.0 % of the weights of 12 layers are zero, and run dense: no speed-up on this target" in " ".join(
        done.stdout.split()
    )
    (facts,) = report(workspace)["passes"]
    assert facts["compressed_bytes"] < facts["dense_bytes"]
    page = (workspace / "out/report.html").read_text()
    assert "no speed-up on this target" in page
    assert "encoder.layer.1.output.dense" in page
    assert verify(workspace / "out/bundle") < 1e-5


def test_convolutions_of_a_factory_in_8_bits(edge, workspace) -> None:
    (workspace / "nets.py").write_text(FACTORY)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(24, 8, 16, 16)).astype(np.float32)
    np.savez(workspace / "arrays.npz", input=images)
    data = ("--calibration-data", "arrays.npz", "--eval-data", "arrays.npz", "--output", "out", "--target", "lenient")
    done = edge("export", "--model", "nets.py:net", "--recipe", recipe(workspace, SPARSE_CONV), *data)
    assert done.returncode == 0, done.stderr
    (facts,) = report(workspace)["passes"]
    assert [(row["kind"], row["bits"]) for row in facts["layers"]] == [
        ("Conv2d", 8),
        ("Conv2d", 8),
        ("Linear", 8),
        ("Linear", 32),
    ]
    weights = [array for array in stored(workspace).values() if array.ndim == 4 and array.dtype == np.int8]
    assert [bool((array == 0).mean() > 0.58) for array in weights] == [True, True]


@pytest.mark.slow
def test_recovery_between_two_sparsities_keeps_the_zeros(edge, tiny, workspace) -> None:
    done = edge("export", *tiny, "--calibration-samples", "32", "--recipe", recipe(workspace, RECOVERED))
    assert done.returncode == 0, done.stderr
    first, _, second, _ = report(workspace)["passes"]
    assert (round(first["sparsity"], 2), round(second["sparsity"], 2)) == (0.5, 0.7)
    codes = [array for array in stored(workspace).values() if array.dtype == np.int8]
    products = [array for array in codes if sorted(array.shape) == [32, 128]]
    assert len(products) == 4
    assert all((array == 0).mean() >= 0.69 for array in products)
    notes = [note for note in report(workspace)["notes"] if note.startswith("sparsify: ")]
    assert [note[:18] for note in notes] == ["sparsify: 70.0 % o"]


def test_mistakes_are_found_before_anything_runs(edge, tiny, workspace) -> None:
    done = edge("export", *tiny, "--recipe", recipe(workspace, SPARSE_W4.replace('"2:4"', '"4:2"')))
    assert done.returncode == 2
    assert "pattern: must be 'N:M' with N below M" in done.stderr
