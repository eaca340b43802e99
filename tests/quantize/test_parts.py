"""Stages of a model with two graphs: each graph's own files, and the second calibrated on what the first gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from pipeline.core.artifact import Artifact
from pipeline.core.errors import UsageError
from pipeline.core.stage import StageContext
from pipeline.core.types import silent
from pipeline.data.samples import write_samples
from pipeline.graph.files import graphs_in, save_graphs
from pipeline.quantize import calibrate, layers, quantize, smooth, write
from pipeline.quantize.parts import joined
from pipeline.quantize.schemes import describe, resolve_scheme
from pipeline.runtime.session import default_session

WIDTH = 64
FEEDS = {"decoder": {"x": "prompt", "states": "encoded"}}


def product(inputs: list[str], given: str, weight: np.ndarray) -> ir.Model:
    """given = sum of inputs @ w."""
    nodes = [helper.make_node("Sum", inputs, ["sum"]), helper.make_node("MatMul", ["sum", "w"], [given], name="dense")]
    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


class Stages:
    """Runs stage functions one after the other, each in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, {}  # type: ignore[var-annotated]

    def run(self, name, function, config, **inputs):  # type: ignore[no-untyped-def]
        out = self.folder / name
        out.mkdir()
        given = {role: self.made[stage] for role, stage in inputs.items()}
        metadata = function(StageContext(config, given, out, silent, self.folder / f"{name}-scratch"))
        self.made[name] = Artifact(out, name, "0" * 64, "0" * 64, metadata)
        return self.made[name]


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    """The encoder multiplies by 5, so that its output is 5 times as wide as its input; the decoder by 1."""
    made = Stages(tmp_path)
    (tmp_path / "trace").mkdir()
    eye = np.eye(WIDTH, dtype=np.float32)
    graphs = {"encoder": product(["x"], "encoded", 5 * eye), "decoder": product(["x", "states"], "y", eye)}
    save_graphs(tmp_path / "trace", graphs, FEEDS)
    made.made["trace"] = Artifact(tmp_path / "trace", "trace", "0" * 64, "0" * 64, {})
    (tmp_path / "samples").mkdir()
    generator = np.random.default_rng(0)
    rows = [generator.uniform(-1, 1, (2, 1, WIDTH)).astype(np.float32) for _ in range(20)]
    write_samples(tmp_path / "samples", ({"x": row[0], "prompt": np.clip(row[1], 0, 0)} for row in rows))
    made.made["samples"] = Artifact(tmp_path / "samples", "samples", "0" * 64, "0" * 64, {})
    made.run("layers", layers.run, {"exclude": [], "overridden": []}, graph="trace")
    return made


def test_the_second_graph_is_calibrated_on_what_the_first_gives(stages: Stages) -> None:
    scheme = resolve_scheme("w8a8", {"smoothing": None, "observer": "minmax"}, "test")
    found = stages.run(
        "ranges", calibrate.ranges, {"scheme": describe(scheme)}, graph="trace", layers="layers", samples="samples"
    )
    assert found.metadata == {"observer": "minmax", "tensors": 2, "samples": 20}
    ends = {name: load_file(found.path / name / "ranges.safetensors")["sum"] for name in ("encoder", "decoder")}
    assert ends["encoder"] == pytest.approx([-1, 1], abs=0.01)
    assert ends["decoder"] == pytest.approx(5 * ends["encoder"], rel=1e-5)


def test_both_graphs_are_smoothed_rounded_and_written_with_their_feeds(stages: Stages) -> None:
    scheme = {"scheme": describe(resolve_scheme("w8a8", {"observer": "minmax"}, "test"))}
    of = {"layers": "layers", "samples": "samples"}
    stages.run("channels", calibrate.channels, {}, graph="trace", **of)
    smoothed = stages.run("smooth", smooth.run, scheme, graph="trace", layers="layers", channels="channels")
    assert (smoothed.metadata["activations"], smoothed.metadata["channels"]) == (2, 2 * WIDTH)
    stages.run("ranges", calibrate.ranges, scheme, graph="smooth", **of)
    plan = stages.run("quantize", quantize.run, scheme, graph="smooth", layers="layers", ranges="ranges")
    assert (plan.metadata["linears"], len(plan.metadata["formats"])) == (2, 2)
    written = stages.run("write", write.run, {}, graph="smooth", plan="quantize")
    assert {spec.name: spec.feeds for spec in graphs_in(written.path)} == {"encoder": {}, **FEEDS}
    row = {"x": np.full((1, WIDTH), 0.5, np.float32)}
    (encoded,) = default_session(graphs_in(written.path).files[0]).run(None, row)
    np.testing.assert_allclose(encoded, 2.5, atol=0.1)


def test_a_pattern_may_match_in_any_graph_but_must_match_in_one(stages: Stages) -> None:
    with pytest.raises(UsageError, match=r"'decoder\.\*' matches no node of the graph"):
        stages.run("odd", layers.run, {"exclude": ["decoder.*"], "overridden": []}, graph="trace")


def test_metadata_of_graphs_are_put_together() -> None:
    parts = [
        {"samples": 8, "count": 1, "left": ["a"], "by": {"a": 1}, "sqnr_db": None},
        {"samples": 8, "count": 2, "left": ["b"], "by": {"b": 2}, "sqnr_db": 31.5, "more": 4},
    ]
    assert joined(iter(parts)) == {
        **{"samples": 8, "count": 3, "left": ["a", "b"], "by": {"a": 1, "b": 2}},
        **{"sqnr_db": 31.5, "more": 4},
    }
