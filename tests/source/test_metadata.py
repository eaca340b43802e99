"""What an ONNX file and the files beside it say of the model."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from pipeline.source.lengths import longest_text
from pipeline.source.metadata import class_names, home
from pipeline.source.model import resolve_model


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        ({"names": "{0: 'person', 1: 'bicycle'}"}, {"0": "person", "1": "bicycle"}),
        ({"id2label": '{"0": "cat", "1": "dog"}'}, {"0": "cat", "1": "dog"}),
        ({"classes": '["a", "b"]'}, {"0": "a", "1": "b"}),
        ({"labels": "up, down,left"}, {"0": "up", "1": "down", "2": "left"}),
        ({"class_names": "yes\nno\n"}, {"0": "yes", "1": "no"}),
        ({"labels": "one"}, {}),
        ({"names": "{'person': 0}"}, {}),
        ({"names": "[[1], [2]]"}, {}),
        ({"names": "(" * 10_000}, {}),
        ({"stride": "32"}, {}),
    ],
)
def test_class_names(metadata: dict[str, str], names: dict[str, str]) -> None:
    assert class_names(metadata) == names


def test_the_folder_of_a_file_from_the_hub(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    assert home(tmp_path / "onnx" / "model.onnx") == tmp_path / "onnx"
    (tmp_path / "config.json").write_text("{}")
    assert home(tmp_path / "onnx" / "model.onnx") == tmp_path


def test_files_beside_count(matmul: Path) -> None:
    bare = resolve_model(str(matmul), task="text-classification")
    model = onnx.load(matmul)
    onnx.helper.set_model_props(model, {"names": "{0: 'no', 1: 'yes'}"})
    onnx.save(model, matmul)
    config = {"model_type": "bert", "max_position_embeddings": 24}
    (matmul.parent / "config.json").write_text(json.dumps(config))
    found = resolve_model(str(matmul), task="text-classification")
    assert found.labels == {"0": "no", "1": "yes"}
    assert (longest := longest_text(found)) is not None
    assert (longest.tokens, longest.said_by) == (24, "max_position_embeddings in config.json")
    assert bare.labels == {}
    assert bare.digest != found.digest
    (matmul.parent / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 25}))
    assert resolve_model(str(matmul), task="text-classification").digest != found.digest
