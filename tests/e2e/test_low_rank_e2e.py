"""A recipe with low-rank layers, from the command line to a checked bundle."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pipeline import verify

FACTORY = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    head = [nn.Linear(16 * 49, 256), nn.ReLU(), nn.Linear(256, 5)]
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Flatten(), *head)
"""
RECIPE = """
title = "Thin layers"
scheme = "{scheme}"
task = "image-classification"
calibration = {{ samples = 12 }}
[inputs.input]
shape = ["batch", 3, 16, 16]
[preprocessing]
rescale = 0.00392156862745098
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[[passes]]
pass = "low_rank"
method = ["svd_llm", "tucker2"]
rank = {{ "2" = 8, "5" = 64 }}
"""
TEXT = """
title = "Thin layers and a thin table"
scheme = "w8a8-dynamic"
[[passes]]
pass = "low_rank"
layers = ["linear", "embedding"]
ignore = ["pooler.*"]
target_params = 0.8
"""


def report(workspace) -> dict:
    return json.loads((workspace / "out/report.json").read_text())


@pytest.mark.slow
def test_an_encoder_with_thin_layers_and_a_thin_table(edge, tiny, workspace) -> None:
    (workspace / "recipes").mkdir()
    (workspace / "recipes/thin.toml").write_text(TEXT)
    done = edge("export", *tiny, "--recipe", "thin")
    assert done.returncode == 0, done.stderr
    (facts,) = report(workspace)["passes"]
    assert 0.75 < facts["parameters_after"] / facts["parameters_before"] <= 0.8
    assert {"name": "pooler.dense", "reason": "ignore names it"} in facts["skipped"]
    assert facts["layers"]
    assert verify(workspace / "out/bundle") < 1e-6


@pytest.mark.parametrize("scheme", ["w8a8-dynamic", pytest.param("w4", marks=pytest.mark.slow)])
def test_both_factors_are_quantized(edge, workspace, scheme) -> None:
    (workspace / "nets.py").write_text(FACTORY)
    (workspace / "recipes").mkdir()
    (workspace / "recipes/thin.toml").write_text(RECIPE.format(scheme=scheme))
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    np.savez(workspace / "images.npz", x=x, y=generator.integers(0, 5, 24))
    done = edge(
        *("export", "--model", "nets.py:net", "--recipe", "thin", "--target", "lenient", "--output", "out"),
        *("--calibration-data", "images.npz", "--eval-data", "images.npz"),
    )
    assert done.returncode == 0, done.stderr
    ranks = {layer["layer"]: layer["ranks"] for layer in report(workspace)["passes"][0]["layers"]}
    assert ranks == {"2": [8, 8], "5": [64]}
    graph = onnx.load(workspace / "out/bundle/model.onnx", load_external_data=False).graph
    for name in ("5.reduce.weight", "5.expand.weight"):
        found = [tensor.data_type for tensor in graph.initializer if name in tensor.name]
        assert {TensorProto.INT8, TensorProto.UINT8} & set(found), f"{name} is in float"
    assert verify(workspace / "out/bundle") < 1e-5
