"""A bundle's graphs in one file, beside their weights, or both ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.bundle import layout
from pipeline.bundle.layout import MAPPED, write_graphs
from pipeline.core.errors import StageError
from pipeline.graph.files import graphs_in, save_graphs

WEIGHTS = np.arange(2 * 300, dtype=np.float32).reshape(2, 300)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """y = x @ weights, as the stage before leaves it: 2,400 bytes of weights beside the graph."""
    folder = tmp_path / "write"
    folder.mkdir()
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 300])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    save_graphs(folder, {"model": ir.from_proto(model)})
    assert (folder / "model.onnx.data").is_file()
    return folder


def answer(model: Path | bytes) -> list[float]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.array([[1, 1]], np.float32)})
    return list(y[0, :3])


@pytest.mark.parametrize(
    ("asked", "files"),
    [
        ("single", ["model.onnx"]),
        ("mapped", ["model.onnx", "model.onnx.data"]),
        ("both", [f"{MAPPED}/model.onnx", f"{MAPPED}/model.onnx.data", "model.onnx"]),
    ],
)
def test_files_of_each_layout(written: Path, tmp_path: Path, asked: layout.Layout, files: list[str]) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    made, placed, notes = write_graphs(graphs_in(written), out, asked)
    assert (made, [spec.file for spec in placed], notes) == (asked, ["model.onnx"], [])
    found = (file for file in out.rglob("*") if file.is_file())
    assert sorted(file.relative_to(out).as_posix() for file in found) == files
    for file in files:
        if file.endswith(".onnx"):
            assert answer(out / file) == [300, 302, 304]


def test_a_single_file_loads_from_bytes(written: Path, tmp_path: Path) -> None:
    write_graphs(graphs_in(written), tmp_path, "single")
    assert answer((tmp_path / "model.onnx").read_bytes()) == [300, 302, 304]


def test_weights_too_large_for_one_file_stay_beside_it(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "LARGEST_SINGLE", 2_000)
    made, _, notes = write_graphs(graphs_in(written), tmp_path, "both")
    assert made == "mapped"
    assert notes == [
        "The weights of model.onnx are in a file beside it: over 2,000 bytes fit into no single .onnx file, so that "
        "apps cannot load it from bytes."
    ]
    assert answer(tmp_path / "model.onnx") == [300, 302, 304]


def test_a_client_finds_one_file_under_its_name(written: Path, tmp_path: Path) -> None:
    made, placed, notes = write_graphs(graphs_in(written), tmp_path / "bundle", "transformers.js", "onnx/{}_q4.onnx")
    assert (made, notes) == ("transformers.js", [])
    assert [spec.file for spec in placed] == ["onnx/model_q4.onnx"]
    assert [path.name for path in (tmp_path / "bundle").rglob("*.*")] == ["model_q4.onnx"]
    assert answer(placed.files[0]) == [300, 302, 304]


def test_a_client_gets_no_weights_beside_the_graph(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "LARGEST_SINGLE", 2_000)
    with pytest.raises(StageError, match=r"The weights of model\.onnx are in a file beside it") as caught:
        write_graphs(graphs_in(written), tmp_path, "transformers.js", "onnx/{}_q4.onnx")
    assert caught.value.remedy == "Export with --layout mapped."
