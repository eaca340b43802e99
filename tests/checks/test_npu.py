"""What is counted of graphs that were compiled for NPUs, and the budgets on it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from measured import measured
from onnx import helper

from pipeline.bundle.contexts import read_context
from pipeline.checks import npu as checked
from pipeline.checks.budgets.metric import Absent
from pipeline.checks.budgets.npu import COVERAGE, PARTS
from pipeline.checks.budgets.tiers import GOLDEN, TIER_DROP
from pipeline.checks.measurements import Measurements
from pipeline.checks.npu import fp16_advice, untried
from pipeline.checks.weights import Weight
from pipeline.config.loading import load_target
from pipeline.config.socs import soc_called
from pipeline.core.errors import StageError, UsageError
from pipeline.core.report_types import NpuGraph, TierCheck
from pipeline.core.types import Evidence, Figure
from pipeline.forecast.work import Work
from pipeline.graph.files import Graphs, GraphSpec

PHONE = load_target("phone-npu")
SOCS = ("SM8550", "SM8650", "SM8750")


def on_phone(*graphs: NpuGraph, tiers: tuple[TierCheck, ...] = ()) -> Measurements:
    found = measured(npu=graphs, tiers=tiers)
    return replace(found, case=replace(found.case, target=PHONE))


def compiled(soc: str, parts: int = 1, **left: int) -> NpuGraph:
    return NpuGraph(soc=soc, title=soc, operators=40, parts=parts, left=left)


def tier(name: str) -> TierCheck:
    return TierCheck(tier=name, cpu=name, isa=(), evidence=Evidence.EMULATED, golden=4, matched=4)


def test_the_worst_soc_counts() -> None:
    found = on_phone(compiled("SM8550"), compiled("SM8650", 3, Erf=6, Where=2), compiled("SM8750"))
    covered, parts = COVERAGE.figure(found), PARTS.figure(found)
    assert isinstance(covered, Figure)
    assert isinstance(parts, Figure)
    assert (covered.value, parts.value) == (0.8, 3)
    assert covered.note == "worst: SM8650, 40 operators; on the CPU: Erf x6, Where x2"
    said, remedy = COVERAGE.explain(0.95, found)
    assert said[0] == "SM8550: 1 part, all of 40 operators"
    assert "w8a16-npu" in remedy


def test_a_bundle_without_compiled_graphs_is_not_measured() -> None:
    missing = COVERAGE.figure(on_phone(compiled("SM8550"), compiled("SM8750")))
    how = "`edge devices setup qnn` on x86-64 Linux, and export it again there"
    assert missing == Absent(f"the bundle has no graph compiled for SM8650: {how}")
    assert PARTS.figure(measured()) == Absent("the target names no NPU ([npu])", applies=False)


@pytest.mark.parametrize("metric", [GOLDEN, TIER_DROP])
def test_arm_cpus_alone_say_nothing_of_the_npu(metric: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.checks.npu.read_metadata", lambda _: SimpleNamespace(npu=SOCS))
    monkeypatch.setattr(checked, "require", lambda: None)
    outcome = metric.figure(on_phone(tiers=(tier("i8mm"), tier("SM8750"))))  # type: ignore[attr-defined]
    assert outcome == Absent("nothing ran on SM8550, SM8650: another runner was named")


def test_why_nothing_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise StageError("QNN is not set up on this machine.", "`edge devices setup qnn` fetches it.")

    monkeypatch.setattr("pipeline.checks.npu.read_metadata", lambda _: SimpleNamespace(npu=SOCS))
    monkeypatch.setattr(checked, "require", fails)
    said = "QNN is not set up on this machine. `edge devices setup qnn` fetches it."
    assert untried(Path(), PHONE, ["SM8550", "SM8650"]) == f"nothing ran on SM8750: {said}"
    assert untried(Path(), PHONE, SOCS) == ""
    assert untried(Path(), load_target("phone"), []) == ""


def test_a_compiled_graph_that_is_none(tmp_path: Path) -> None:
    graphs = Graphs(tmp_path, (GraphSpec(file="model.onnx", inputs=(), outputs=()),))
    soc = soc_called("SM8750")
    with pytest.raises(UsageError, match="has no graph for SM8750, which it names"):
        read_context(graphs, soc)
    place = tmp_path / "qnn/SM8750/model.onnx"
    place.parent.mkdir(parents=True)
    model = helper.make_model(helper.make_graph([helper.make_node("EPContext", [], ["y"])], "g", [], []))
    place.write_bytes(model.SerializeToString())
    assert read_context(graphs, soc).parts == 1
    place.write_bytes(model.SerializeToString()[:-3])
    with pytest.raises(UsageError, match="The bundle's graph for SM8750 is no ONNX model"):
        read_context(graphs, soc)


@pytest.mark.parametrize(
    ("table", "key", "value", "said"),
    [
        ("npu", "socs", ["SM875"], "There is no SoC 'SM875' that QNN compiles for"),
        ("npu", "sources", {}, "no source for socs: add it to [npu.sources]"),
        ("shape", "batch_size", 4, "an NPU's graph has a batch of 1"),
        ("bundle", "layout", "mapped", "an NPU's graphs lie beside a single file"),
    ],
)
def test_targets_that_no_npu_takes(table: str, key: str, value: object, said: str) -> None:
    data = json.loads(PHONE.model_dump_json())
    data[table][key] = value
    with pytest.raises(UsageError) as caught:
        type(PHONE).from_data(data, "target t")
    assert said in caught.value.message


def test_published_rows_advise_float16_for_text_encoders() -> None:
    products, halves = Weight("w", "MatMul", (8, 8), 64, 8), Weight("w", "MatMul", (8, 8), 64, 16)
    (said,) = fp16_advice(Work(pointwise=1e9, convolved=0.0), [products])
    assert "0.85 ms against 0.50 on the Galaxy S25" in said
    assert "--recipe fp16" in said
    assert fp16_advice(Work(pointwise=1e9, convolved=0.0), [halves]) == ()
    assert fp16_advice(Work(window=1e9, convolved=1.0), [products]) == ()
