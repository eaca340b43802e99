"""Graphs whose matrices stay in the files of a checkpoint: what ONNX Runtime reads, and what is loaded of it again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save_file

from pipeline.core.digest import sha256_file
from pipeline.core.errors import StageError
from pipeline.graph.files import load_model, referred_files, save_model, save_referring
from pipeline.graph.lazy import add_matrix, matrix_of
from pipeline.graph.stored_matrix import StoredMatrix
from pipeline.source.weights import stored_tensors

GENERATOR = torch.Generator().manual_seed(0)
TABLE, QUERIES, KEYS = (torch.randn(rows, 8, generator=GENERATOR) for rows in (20, 6, 4))


def checkpoint(folder: Path, kind: torch.dtype) -> dict[str, StoredMatrix]:
    """Two files of a checkpoint."""
    folder.mkdir()
    save_file({"table": TABLE.to(kind), "q": QUERIES.to(kind)}, folder / "model-00001-of-00002.safetensors")
    save_file({"k": KEYS.to(kind)}, folder / "model-00002-of-00002.safetensors")
    index = '{"weight_map": {"table": "model-00001-of-00002.safetensors", "k": "model-00002-of-00002.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(index)
    return {name: StoredMatrix.of(stored) for name, stored in stored_tensors(folder).items()}


def model_of(matrices: dict[str, StoredMatrix]) -> ir.Model:
    """ids -> rows of the table -> products with queries and keys side by side, with the table turned, and with itself
    as it lies."""
    ids = ir.val("ids", ir.DataType.INT64, ["tokens"])
    graph = ir.Graph([ids], [], nodes=[], opset_imports={"": 23}, name="main")
    turned = matrices["q"].transposed()
    table = add_matrix(graph, "table.weight", matrices["table"])
    joined = add_matrix(graph, "qk.weight", turned.beside([matrices["k"].transposed()]))
    head = add_matrix(graph, "head.weight", matrices["table"].transposed())
    small = ir.val("shift", const_value=ir.tensor(np.linspace(0, 1, 8, dtype=np.float32), name="shift"))
    large = ir.val(
        "scale", const_value=ir.tensor(np.linspace(1, 2, 800, dtype=np.float32).reshape(100, 8)[:1], name="scale")
    )
    for value in (small, large):
        graph.register_initializer(value)
    nodes = [
        ir.node("Gather", [table, ids], name="embed/Gather"),
        ir.node("Add", [None, small], name="shift/Add"),
        ir.node("MatMul", [None, joined], name="qk/MatMul"),
        ir.node("MatMul", [None, head], name="head/MatMul"),
        ir.node("MatMul", [None, table], name="back/MatMul"),
    ]
    rows, shifted, sides, logits, back = (node.outputs[0] for node in nodes)
    nodes[1].replace_input_with(0, rows)
    nodes[2].replace_input_with(0, shifted)
    nodes[3].replace_input_with(0, shifted)
    nodes[4].replace_input_with(0, logits)
    for value, name in zip(
        (rows, shifted, sides, logits, back), ("rows", "shifted", "qk", "logits", "back"), strict=True
    ):
        value.name, value.dtype = name, ir.DataType.FLOAT
    graph.extend(nodes)
    graph.outputs.extend([sides, back])
    return ir.Model(graph, ir_version=10)


def answers(path: Path) -> list[np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": np.array([3, 0, 19])})


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_it_answers_as_the_graph_with_its_weights_in_float32(tmp_path: Path, kind: torch.dtype) -> None:
    matrices = checkpoint(tmp_path / "source", kind)
    for name in ("plain", "referring"):
        (tmp_path / name).mkdir()
    save_model(model_of(matrices), tmp_path / "plain" / "model.onnx")
    save_referring(model_of(matrices), tmp_path / "referring" / "model.onnx")
    for one, other in zip(*(answers(tmp_path / name / "model.onnx") for name in ("plain", "referring")), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_loaded_is_the_graph_that_was_saved(tmp_path: Path, kind: torch.dtype) -> None:
    matrices = checkpoint(tmp_path / "source", kind)
    for name in ("plain", "referring", "again"):
        (tmp_path / name).mkdir()
    save_model(model_of(matrices), tmp_path / "plain" / "model.onnx")
    save_referring(model_of(matrices), tmp_path / "referring" / "model.onnx")
    loaded = load_model(tmp_path / "referring" / "model.onnx")
    assert matrix_of(loaded.graph.initializers["qk.weight"]).shape == (8, 10)
    save_model(loaded, tmp_path / "again" / "model.onnx")
    for file in ("model.onnx", "model.onnx.data"):
        assert sha256_file(tmp_path / "again" / file) == sha256_file(tmp_path / "plain" / file)


def test_the_checkpoints_files_lie_beside_it_under_other_names(tmp_path: Path) -> None:
    matrices = checkpoint(tmp_path / "source", torch.bfloat16)
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "model.onnx"
    files = save_referring(model_of(matrices), path)
    assert {name: file.name for name, file in files.items()} == {
        "model.onnx.0.safetensors": "model-00001-of-00002.safetensors",
        "model.onnx.1.safetensors": "model-00002-of-00002.safetensors",
    }
    assert [file.samefile(files[file.name]) for file in referred_files(path)] == [True, True]
    assert sum(file.stat().st_size for file in path.parent.glob("*.data")) == 0


def test_matrices_are_widened_one_after_the_other(tmp_path: Path) -> None:
    """Memory would hold all of them if ONNX Runtime could begin with what needs no input."""
    (tmp_path / "out").mkdir()
    save_referring(model_of(checkpoint(tmp_path / "source", torch.bfloat16)), tmp_path / "out" / "model.onnx")
    graph = ir.load(tmp_path / "out" / "model.onnx").graph
    widened = [node for node in graph if node.op_type == "Cast"]
    assert len(widened) == 4
    assert all(node.inputs[0].producer() is not None for node in widened)


def test_a_checkpoint_that_is_written_again_is_not_read(tmp_path: Path) -> None:
    matrices = checkpoint(tmp_path / "source", torch.bfloat16)
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "model.onnx"
    save_referring(model_of(matrices), path)
    loaded = load_model(path)
    file = tmp_path / "source" / "model-00002-of-00002.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"\x7f")  # in place: the store's file is the same one
    with pytest.raises(StageError, match=r"model\.onnx\.1\.safetensors was changed, cut short or removed"):
        loaded.graph.initializers["qk.weight"].const_value.numpy()
    with pytest.raises(StageError, match=r"model\.onnx\.1\.safetensors was changed, cut short or removed"):
        load_model(path)


def test_another_name_of_a_file_is_no_change(tmp_path: Path) -> None:
    matrices = checkpoint(tmp_path / "source", torch.bfloat16)
    for name in ("out", "other"):
        (tmp_path / name).mkdir()
        save_referring(model_of(matrices), tmp_path / name / "model.onnx")
    assert load_model(tmp_path / "out" / "model.onnx").graph.initializers["qk.weight"].const_value.numpy().shape == (
        8,
        10,
    )
