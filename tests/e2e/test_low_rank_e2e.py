"""A recipe with low-rank layers, from the command line to a checked bundle."""

from __future__ import annotations

import json

import onnx

from pipeline import verify

RECIPE = """
title = "Thin layers and a thin table"
scheme = "{scheme}"

[[passes]]
pass = "low_rank"
layers = ["linear", "embedding"]
ignore = ["pooler.*"]
target_params = 0.8
"""


def test_both_factors_of_layers_and_tables_are_quantized(edge, tiny, workspace) -> None:
    (workspace / "recipes").mkdir()
    (workspace / "recipes/thin.toml").write_text(RECIPE.format(scheme="w8a8-dynamic"))
    done = edge("export", *tiny, "--recipe", "thin")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    (facts,) = report["passes"]
    assert 0.75 < facts["parameters_after"] / facts["parameters_before"] <= 0.8
    assert {"layer": "pooler.dense", "reason": "ignore names it"} in facts["left_out"]
    thin = [layer["layer"] for layer in facts["layers"]]
    assert thin
    assert verify(workspace / "out/bundle") < 1e-6
    graph = onnx.load(workspace / "out/bundle/model.onnx", load_external_data=False).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for name in thin:
        first = "table" if "embeddings" in name else "reduce"
        for part in (first, "expand"):
            stored = [kind for tensor, kind in kinds.items() if f"{name}.{part}.weight" in tensor]
            assert stored, f"{name}.{part} is not in the graph under its name"
            assert onnx.TensorProto.INT8 in stored or onnx.TensorProto.UINT8 in stored, f"{name}.{part} is in float"
