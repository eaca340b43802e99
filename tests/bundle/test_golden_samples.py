"""How many golden samples a bundle gets, and what another CPU may answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from cached_attention import GROUPS, attention
from model_specs import factory, hugging_face
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline.bundle import golden_samples
from pipeline.bundle.golden import golden_arrays, read_golden
from pipeline.bundle.golden_samples import make_golden
from pipeline.config.target import Runtime
from pipeline.core.model_spec import LanguageSpec
from pipeline.data.samples import DATASET, write_samples
from pipeline.graph.files import Graphs, graphs_in, save_graphs
from pipeline.quantize.stored_cache import store_cache
from pipeline.runtime.session import make_session


def graph(folder: Path, quantized: bool = False) -> Graphs:
    """y = x [batch, 100], rounded to whole numbers on the way if it is quantized."""
    nodes, given = [helper.make_node("Identity", ["x"], ["y"])], []
    if quantized:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["code"]),
            helper.make_node("DequantizeLinear", ["code", "scale", "zero"], ["y"]),
        ]
        given = [numpy_helper.from_array(np.float32(1), "scale"), numpy_helper.from_array(np.uint8(0), "zero")]
    taken, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 100]) for name in "xy")
    model = helper.make_graph(nodes, "g", [taken], [made], given)
    folder.mkdir()
    opset = helper.make_opsetid("", 21)
    save_graphs(folder, {"model": ir.from_proto(helper.make_model(model, opset_imports=[opset], ir_version=10))})
    return graphs_in(folder)


def samples(folder: Path, count: int, images: bool = False) -> Path:
    folder.mkdir()
    write_samples(folder, ({"x": np.full((1, 100), number, np.float32)} for number in range(1, count + 1)))
    (folder / DATASET).write_text(json.dumps({"texts": []}))
    for number in range(count if images else 0):
        (folder / f"raw/{number}").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / f"raw/{number}/image.png")
    return folder


@pytest.mark.parametrize(("allowed", "kept"), [(10_000, 4), (2_000, 2), (100, 1)])
def test_fewer_where_they_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int, kept: int) -> None:
    """Each has 800 bytes of arrays."""
    monkeypatch.setattr(golden_samples, "GOLDEN_BYTES", allowed)
    make_golden(tmp_path, graph(tmp_path / "model"), samples(tmp_path / "set", 6), Runtime(), factory())
    assert read_golden(tmp_path).samples == kept
    assert len([*(tmp_path / "golden").glob("*/input-0.npy")]) == kept


def test_images_go_with_their_samples(tmp_path: Path) -> None:
    make_golden(tmp_path, graph(tmp_path / "model"), samples(tmp_path / "set", 6, images=True), Runtime(), factory())
    assert read_golden(tmp_path).raw == "image.png"
    assert len([*(tmp_path / "golden").glob("*/image.png")]) == 4


def test_an_image_that_is_too_large_stays_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_samples, "GOLDEN_BYTES", 50)
    make_golden(tmp_path, graph(tmp_path / "model"), samples(tmp_path / "set", 6, images=True), Runtime(), factory())
    assert read_golden(tmp_path).raw == ""
    assert not [*(tmp_path / "golden").glob("*/image.png")]


def test_float_arithmetic_allows_what_other_kernels_do_at_least(tmp_path: Path) -> None:
    make_golden(tmp_path, graph(tmp_path / "model", quantized=True), samples(tmp_path / "set", 2), Runtime(), factory())
    assert read_golden(tmp_path).tolerance == 0.02


@pytest.mark.parametrize(("difference", "tolerance"), [(0.0, 0.02), (0.0317, 0.07), (0.5, 0.25)])
def test_twice_the_difference_is_allowed_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float, tolerance: float
) -> None:
    monkeypatch.setattr(golden_samples, "difference", lambda *_: difference)
    make_golden(tmp_path, graph(tmp_path / "model"), samples(tmp_path / "set", 2), Runtime(), factory())
    assert read_golden(tmp_path).tolerance == tolerance


def test_the_last_sample_of_a_language_model_is_a_token_behind_others(tmp_path: Path) -> None:
    model = attention()
    store_cache(model, 8, {name: np.full((GROUPS, 16), 3.5, np.float32) for name in ("key", "value")})
    (tmp_path / "model").mkdir()
    save_graphs(tmp_path / "model", {"model": model})
    generator, past = np.random.default_rng(0), np.zeros((1, GROUPS, 0, 16), np.float32)
    texts = [generator.integers(0, 50, (1, 9)) for _ in range(3)]
    kept = {"past.key": past, "past.value": past}
    (tmp_path / "set").mkdir()
    write_samples(tmp_path / "set", [{"input_ids": ids, "attention_mask": np.ones_like(ids), **kept} for ids in texts])
    language = LanguageSpec(layers=1, heads=GROUPS, size=16, queries=8, hidden=128, vocabulary=50, longest=64)
    made = graphs_in(tmp_path / "model")
    make_golden(tmp_path, made, tmp_path / "set", Runtime(), hugging_face(Path("llama"), language=language))
    golden = read_golden(tmp_path)
    first, last = (golden_arrays(tmp_path, number, golden.inputs) for number in (0, 2))
    assert {name: array.shape for name, array in first.items()} == {
        **{"input_ids": (1, 9), "attention_mask": (1, 9)},
        **dict.fromkeys(kept, (1, GROUPS, 0, 16)),
    }
    assert last["input_ids"].tolist() == texts[2][:, -1:].tolist()
    assert (last["past.key"].shape, last["past.key"].dtype) == ((1, GROUPS, 8, 16), np.int8)
    whole = {"input_ids": texts[2], "attention_mask": np.ones((1, 9), np.int64), **{k: first[k] for k in kept}}
    (expected,) = make_session(made, Runtime()).run(["logits"], whole)
    (said,) = golden_arrays(tmp_path, 2, golden.outputs).values()
    assert said[0, 0] == pytest.approx(expected[0, -1], abs=1e-4)
