"""What the README of a classifier of images says: its Python prepares an image as the pipeline does."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from model_specs import factory
from onnx import TensorProto, helper, numpy_helper

from pipeline.bundle.build import run
from pipeline.config.target import Runtime
from pipeline.core.artifact import Artifact
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import Scheme, silent
from pipeline.data.datasets import Dataset
from pipeline.data.image_preprocessing import ImagePreprocessing
from pipeline.data.raw import write_raw
from pipeline.data.samples import DATASET, write_samples
from pipeline.graph.files import save_graphs

STEPS = {"resize": [12, 8], "resample": 3, "rescale": 1 / 255, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}


def classifier() -> ir.Model:
    """Mean of each colour -> logits of three classes: the class of the strongest colour."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"], name="logits/MatMul"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 12, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def bundle(place: Path, picture: np.ndarray | None = None, **changes: Any) -> Path:
    """Of the classifier, as a factory whose recipe says how images are prepared. `picture`: what the only sample came
    from."""
    made, sets, out = (place / name for name in ("write", "evaluation", "bundle"))
    for folder in (made, sets / "0", out):
        folder.mkdir(parents=True)
    save_graphs(made, {"model": classifier()})
    write_samples(sets / "0", [{"pixels": np.zeros((1, 3, 12, 8), np.float32)}])
    (sets / "0" / DATASET).write_text(json.dumps({"texts": []}))
    if picture is not None:
        write_raw(sets / "0", Dataset("d", "image", [picture], None, pairs=False, digest="", origin={}), 1, 8)
    config = {
        "scheme": Scheme(name="fp32").model_dump(mode="json"),
        "runtime": Runtime().model_dump(mode="json", exclude={"sources"}),
        "max_length": 64,
        "layout": "single",
        "files": "{}.onnx",
        "ort": False,
        "min_onnxruntime": None,
        "licence": "mit",
        "provenance": {"model": "m", "model_digest": "d", "target": "phone", "recipe": "fp32"},
    }
    inputs = {
        role: Artifact(path, role, "0" * 64, "0" * 64, {}) for role, path in (("model", made), ("evaluation", sets))
    }
    spec = factory(labels={"0": "red", "1": "green", "2": "blue"}, **changes)
    run(StageContext(config, inputs, out, silent, models={MODEL: spec}))
    return out


def executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the README's Python leaves."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found is not None
    (folder / "client.py").write_text(found.group(1))
    monkeypatch.chdir(folder)
    return runpy.run_path("client.py")


PICTURE = np.random.default_rng(0).integers(0, 256, (31, 45, 3), np.uint8)


@pytest.mark.parametrize("changes", [{}, {"resize": 16, "crop": [12, 8]}, {"resize": None, "crop": [12, 8]}])
def test_images_are_prepared_as_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    """The golden sample's own image, so that an app can tell whether it does the same."""
    folder = bundle(tmp_path, PICTURE, preprocessing=STEPS | changes)
    names = executed(folder, monkeypatch)
    expected = ImagePreprocessing.model_validate(STEPS | changes)(PICTURE)
    assert np.allclose(names["feed"]["pixels"], expected[None], atol=1e-5)
    assert json.loads((folder / "golden/golden.json").read_text())["raw"] == "image.png"


def test_an_image_where_the_samples_were_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = executed(bundle(tmp_path, preprocessing=STEPS), monkeypatch)
    assert names["feed"]["pixels"].shape == (1, 3, 12, 8)
    assert capsys.readouterr().out == "['red']\n"  # of an orange image


def test_other_preparations_are_left_to_the_golden_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = executed(bundle(tmp_path, preprocessing={**STEPS, "resize": {"height": 12}}), monkeypatch)
    assert not names["feed"]["pixels"].any()
    assert capsys.readouterr().out == "['red']\n"  # all are equal, and the first wins


def test_what_else_it_says(tmp_path: Path) -> None:
    folder = bundle(tmp_path, preprocessing=STEPS)
    text = (folder / "README.md").read_text()
    assert "Classes (`labels.json`): red, green, blue." in text
    assert "The model's card says `mit`; what that asks for holds for this bundle too." in text
    assert "The weights are the float model's." in text
    assert json.loads((folder / "labels.json").read_text()) == ["red", "green", "blue"]
