"""Hessians segment by segment, against those of the graph as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from pipeline.core.artifact import Artifact
from pipeline.core.stage import StageContext
from pipeline.core.types import silent
from pipeline.graph.files import graph_file, load_model
from pipeline.quantize import calibrate, segmented
from pipeline.quantize.hessians import HESSIANS
from pipeline.quantize.segments import segments
from pipeline.quantize.shards import read_shards

Make = Callable[..., Any]
WIDTH, BLOCKS = 64, 3


@pytest.fixture
def chain(make_graph: Make) -> Artifact:
    """h0 = table[ids]; h(i + 1) = h(i) + relu(h(i) A(i)) B(i): three blocks with a value that all of them add to."""
    draw = np.random.default_rng(5).normal
    weights = {"table": draw(size=(60, WIDTH)).astype(np.float32)}
    nodes = [helper.make_node("Gather", ["table", "ids"], ["h0"], name="words")]
    for block in range(BLOCKS):
        weights |= {f"{name}{block}": draw(scale=0.1, size=(WIDTH, WIDTH)).astype(np.float32) for name in "AB"}
        nodes += [
            helper.make_node("MatMul", [f"h{block}", f"A{block}"], [f"up{block}"], name=f"up{block}/MatMul"),
            helper.make_node("Relu", [f"up{block}"], [f"on{block}"], name=f"on{block}"),
            helper.make_node("MatMul", [f"on{block}", f"B{block}"], [f"down{block}"], name=f"down{block}/MatMul"),
            helper.make_node("Add", [f"h{block}", f"down{block}"], [f"h{block + 1}"], name=f"add{block}"),
        ]
    return make_graph(nodes, weights, {"ids": ["batch", "sequence"]}, {f"h{BLOCKS}": ["batch", "sequence", WIDTH]})


@pytest.fixture
def given(chain: Artifact, layers_of: Make, make_samples: Make) -> dict[str, Artifact]:
    ids: list[NDArray[np.int64]] = [np.random.default_rng(seed).integers(0, 60, (1, 9 + seed % 3)) for seed in range(8)]
    return {"graph": chain, "layers": layers_of(chain), "samples": make_samples([{"ids": each} for each in ids])}


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "are_large", lambda _: True)
    monkeypatch.setattr(segmented, "_MOST", 8 * WIDTH**2)


def run(given: dict[str, Artifact], out: Path, scratch: Path | None = None) -> dict[str, NDArray[Any]]:
    out.mkdir()
    calibrate.hessians(StageContext({}, given, out, silent, scratch))
    assert all(path.name.startswith("hessians") for path in out.iterdir() if path.is_file())
    return read_shards(out, HESSIANS)


def test_a_graph_is_cut_where_one_value_goes_on(chain: Artifact) -> None:
    model = load_model(graph_file(chain.path))
    widths = {name: WIDTH for block in range(BLOCKS) for name in (f"h{block}", f"on{block}")}
    found = segments(model, widths, most=WIDTH)
    assert [(one.inputs, set(one.watched), one.outputs) for one in found] == [
        ((), {"h0"}, ("h0",)),
        (("h0",), {"on0", "h1"}, ("h1",)),
        (("h1",), {"on1", "h2"}, ("h2",)),
        (("h2",), {"on2"}, ()),
    ]
    assert len(segments(model, widths, most=2 * WIDTH * BLOCKS)) == 1


@pytest.mark.usefixtures("cut")
def test_segments_give_the_whole_graphs_hessians(
    given: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(given, tmp_path / "segmented")
    monkeypatch.setattr(calibrate, "are_large", lambda _: False)
    expected = run(given, tmp_path / "whole")
    assert found.keys() == expected.keys() == {f"{name}{block}" for block in range(BLOCKS) for name in ("h", "on")}
    for name, matrix in expected.items():
        np.testing.assert_allclose(found[name], matrix, rtol=1e-5, atol=1e-5 * np.abs(matrix).max())


@pytest.mark.usefixtures("cut")
def test_a_killed_calibration_goes_on_at_its_segment(
    given: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(given, tmp_path / "at-once")
    own, ran = segmented._run, []

    def run_until(last: int) -> Callable[..., None]:
        def watch(session: Any, segment: Any, *others: Any) -> None:
            if len(ran) == last:
                raise KeyboardInterrupt
            ran.append(segment.outputs)
            own(session, segment, *others)

        return watch

    monkeypatch.setattr(segmented, "_run", run_until(2))
    with pytest.raises(KeyboardInterrupt):
        run(given, tmp_path / "killed", tmp_path / "scratch")
    monkeypatch.setattr(segmented, "_run", run_until(9))
    found = run(given, tmp_path / "again", tmp_path / "scratch")
    assert ran == [("h0",), ("h1",), ("h2",), ()]
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
