"""`edge compare` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

CUT = 'title = "Half"\nscheme = "w8a8-dynamic"\n[[passes]]\npass = "prune"\nratio = 0.5\nround_to = 16\n'


@pytest.fixture
def cut(workspace: Path) -> list[str]:
    (workspace / "recipes").mkdir()
    (workspace / "recipes/cut.toml").write_text(CUT)
    target = workspace / "targets/lenient.toml"  # long enough for three processes, fewer of which decide nothing
    target.write_text(target.read_text().replace("measure_seconds = 0.5", "measure_seconds = 15"))
    return ["--recipe", "cut"]


def test_a_recipe_beside_plain_schemes_and_in_its_report(edge, tiny, workspace, cut) -> None:
    flags = [*tiny[:-1], "beside"]
    chosen = ["--against", "w8a8-dynamic", "--against", "fp16"]
    done = edge("compare", *flags, *cut, *chosen, "--json", "--fail-if-dominated")
    comparison = json.loads(done.stdout)
    unknown = any(
        candidate["incomparable_reason"] for candidate in comparison["candidates"]
    )  # on a machine that is loaded
    assert done.returncode == (1 if comparison["dominated_by"] else 4 if unknown else 0), done.stderr
    assert json.loads((workspace / "beside/compare.json").read_text()) == comparison
    assert (workspace / "beside/compare.html").is_file()
    candidates = {candidate["label"]: candidate for candidate in comparison["candidates"]}
    assert candidates.keys() == {"float", "cut", "fp16", "w8a8-dynamic"}
    plain = candidates["w8a8-dynamic"]
    assert [difference["axis"] for difference in plain["against"]] == ["size", "latency", "drop", "fidelity"]
    reasons = {entry["reason"] for entry in comparison["refused"]}
    assert reasons == {"not asked for (--against)", "for NPUs, and the target has none"}
    assert done.stderr.count("trace float model") == 1  # what is shared is shown once

    again = edge("export", *tiny, *cut)  # what compare built is what export exports, and its report knows the result
    assert again.returncode == 0, again.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    assert all(stage["cached"] for stage in report["stages"])
    assert report["comparison"] == comparison
    assert not any("Not compared" in note for note in report["notes"])
    assert "At the same bytes:" in again.stdout


def test_mistakes(edge, tiny, cut) -> None:
    done = edge("compare", *tiny, *cut, "--against", "w8a9")
    assert done.returncode == 2
    assert "There is no plain scheme 'w8a9' to compare with." in done.stderr
    done = edge("compare", *tiny, "--recipe", "w4", "--against", "w4")
    assert done.returncode == 2
    assert "There is nothing to compare 'w4' with: w4 is the recipe itself." in done.stderr


def test_an_onnx_file_has_plain_schemes_only(edge, workspace, cut) -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [64, 8], [0.01 * (index % 7 - 3) for index in range(512)])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [weight],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), workspace / "m.onnx")
    np.savez(workspace / "x.npz", x=np.ones((8, 64), np.float32))
    flags = ["--model", "m.onnx", "--task", "image-classification", "--target", "lenient"]
    done = edge(
        "compare", *flags, "--calibration-data", "x.npz", "--eval-data", "x.npz", "--calibration-samples", "8", *cut
    )
    assert done.returncode == 2
    assert "has compression passes, which need a PyTorch model" in done.stderr
