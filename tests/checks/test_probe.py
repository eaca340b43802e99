"""What the float model's answers depend on, found by running it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pipeline.checks.probe import run
from pipeline.core.artifact import Artifact
from pipeline.core.errors import UsageError
from pipeline.core.stage import StageContext
from pipeline.core.types import silent
from pipeline.data.samples import DATASET, Row, write_samples
from pipeline.graph.files import save_graphs
from pipeline.runtime.behaviour import Behaviour

GENERATOR = np.random.default_rng(0)
WEIGHT = GENERATOR.normal(size=(8, 4)).astype(np.float32)


def node(op: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


PRODUCT = [node("MatMul", "h w", "y")]
ALONE = [node("Tanh", "x", "h"), *PRODUCT]
WHOLE = [node("ReduceMean", "x", "m", keepdims=0), node("Sub", "x m", "h"), *PRODUCT]
RIVALS = [node("Softmax", "x", "h", axis=0), *PRODUCT]
ORDER = [node("CumSum", "x axis", "h"), *PRODUCT]


def probe(
    folder: Path,
    nodes: list[NodeProto],
    rows: list[Row],
    family: str = "classifier",
    first: int | str = "batch",
    **more: object,
) -> Behaviour:
    """Run the stage on a graph of `nodes` from the inputs of the first row to `y`, and on samples `rows`."""
    kinds = {"f": TensorProto.FLOAT, "i": TensorProto.INT64}
    inputs = [
        helper.make_tensor_value_info(name, kinds[array.dtype.kind], [first, *"nk"[: array.ndim - 1]])
        for name, array in rows[0].items()
    ]
    constants = [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.array(0), "axis")]
    outputs = [helper.make_tensor_value_info("y", more.get("kind", TensorProto.FLOAT), None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    place, sets = folder / "float", folder / "evaluation"
    (sets / "0").mkdir(parents=True)
    place.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    save_graphs(place, {"model": ir.from_proto(model)})
    write_samples(sets / "0", rows)
    (sets / "0" / DATASET).write_text(json.dumps({"name": "set", "labels": None, "pairs": False, "pads": {}}))
    artifacts = {name: Artifact(path, name, name, "", {}) for name, path in (("float", place), ("evaluation", sets))}
    facts = run(StageContext({"family": family}, artifacts, folder, silent))
    return Behaviour.model_validate(facts)


def vectors(count: int = 6) -> list[Row]:
    return [{"x": row[None]} for row in GENERATOR.normal(size=(count, 8)).astype(np.float32)]


@pytest.mark.parametrize(
    ("nodes", "batch"), [(ALONE, "free"), (WHOLE, "dependent"), (RIVALS, "dependent"), (ORDER, "dependent")]
)
def test_answers_that_depend_on_the_batch(tmp_path: Path, nodes: list[NodeProto], batch: str) -> None:
    found = probe(tmp_path, nodes, vectors())
    assert (found.batch, found.independent, found.padding) == (batch, batch == "free", "none")


def test_lengths_beside_texts_refuse_what_is_cut(tmp_path: Path) -> None:
    """Texts of 3, 4 and 5 vectors, each with its length, of which ONNX Runtime takes none beyond the text."""
    texts = [GENERATOR.normal(size=(1, size, 8)).astype(np.float32) for size in (3, 4, 5)]
    rows: list[Row] = [{"x": text, "lengths": np.array([text.shape[1]])} for text in texts]
    reverse = node("ReverseSequence", "x lengths", "h", batch_axis=0, time_axis=1)
    found = probe(tmp_path, [reverse, *PRODUCT], rows, family="generic")
    assert (found.batch, found.independent) == ("unknown", False)
    assert "No two samples could be run together" in " ".join(found.notes())


def test_a_dependence_that_alike_samples_hide(tmp_path: Path) -> None:
    """x over the largest magnitude of the whole batch, which is 1 in every sample: only an exaggerated one shows it."""
    nodes = [node("Abs", "x", "a"), node("ReduceMax", "a", "m", keepdims=0), node("Div", "x m", "h"), *PRODUCT]
    rows = [{"x": row["x"] / np.abs(row["x"]).max()} for row in vectors()]
    assert probe(tmp_path, nodes, rows).batch == "dependent"


def test_a_fixed_batch_axis_and_a_single_sample(tmp_path: Path) -> None:
    assert probe(tmp_path / "a", ALONE, vectors(), first=1).batch == "fixed"
    assert probe(tmp_path / "b", ALONE, vectors(1)).batch == "unknown"


def texts() -> list[Row]:
    lengths = (3, 5, 5, 9)
    values: list[NDArray[np.float32]] = [GENERATOR.normal(size=(1, n, 8)).astype(np.float32) for n in lengths]
    return [{"x": x, "attention_mask": np.ones(x.shape[:2], np.int64)} for x in values]


MASKED = [
    node("Cast", "attention_mask", "f", to=TensorProto.FLOAT),
    node("Unsqueeze", "f last", "k"),
    node("Constant", "", "last", value=numpy_helper.from_array(np.array([2]))),
]


def test_padding_that_the_mask_hides_and_padding_that_it_does_not(tmp_path: Path) -> None:
    """The sum of masked states ignores what is padded; a maximum over all places of x + 1 sees the zeros there."""
    ordered = [MASKED[2], *MASKED[:2]]
    hidden = [*ordered, node("Mul", "x k", "z"), node("ReduceSum", "z one", "h", keepdims=0)]
    one = node("Constant", "", "one", value=numpy_helper.from_array(np.array([1])))
    found = probe(tmp_path / "a", [one, *hidden, *PRODUCT], texts())
    assert (found.batch, found.padding) == ("free", "harmless")
    seen = [one, *hidden[:-2], node("Exp", "x", "e"), node("ReduceSum", "e one", "h", keepdims=0), *PRODUCT]
    found = probe(tmp_path / "b", seen, texts())
    assert (found.batch, found.padding) == ("free", "changes")
    assert "Padding changes the float model's answers" in " ".join(found.notes())


def test_one_logit_is_a_number(tmp_path: Path) -> None:
    single = [*ALONE[:-1], node("MatMul", "h w", "all"), node("ReduceMean", "all axes", "y", keepdims=1)]
    axes = node("Constant", "", "axes", value=numpy_helper.from_array(np.array([1])))
    assert probe(tmp_path / "a", [axes, *single], vectors()).family == "scores"
    flat = [*single[:-1], node("ReduceMean", "all axes", "y", keepdims=0)]
    assert probe(tmp_path / "b", [axes, *flat], vectors()).family == "scores"
    assert probe(tmp_path / "c", ALONE, vectors()).family == "classifier"


def test_outputs_without_a_judge(tmp_path: Path) -> None:
    whole = [*ALONE[:-1], node("MatMul", "h w", "all"), node("ArgMax", "all", "y", axis=1)]
    with pytest.raises(UsageError) as caught:
        probe(tmp_path, whole, vectors(), kind=TensorProto.INT64)
    assert caught.value.message.endswith("or [batch, tokens, values]; it has y int64 [1, 1].")
    assert "--task generic" in caught.value.remedy
    found = probe(tmp_path / "any", whole, vectors(), kind=TensorProto.INT64, family="generic")
    assert (found.family, found.batch, found.judged) == ("generic", "free", ("y",))


def test_a_first_axis_that_is_not_the_batchs(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        probe(tmp_path, [node("Transpose", "x", "y", perm=[1, 0])], vectors())
    assert caught.value.message == ("The output 'y' is [8, 1] for one sample: its first axis is not the batch's.")
    found = probe(tmp_path / "any", [node("Transpose", "x", "y", perm=[1, 0])], vectors(), family="generic")
    assert found.batch == "dependent"


def test_a_number_beside_the_judged_output(tmp_path: Path) -> None:
    nodes = [node("Neg", "x", "y"), node("ReduceSum", "x", "sum", keepdims=0)]
    assert probe(tmp_path, nodes, vectors()).batch == "free"


def test_an_output_without_values(tmp_path: Path) -> None:
    nothing = helper.make_node("Slice", ["all", "begin", "begin", "axis1"], ["y"])
    limits = [
        node("Constant", "", name, value=numpy_helper.from_array(np.array([number])))
        for name, number in (("begin", 0), ("axis1", 1))
    ]
    with pytest.raises(UsageError) as caught:
        probe(tmp_path, [*ALONE[:-1], node("MatMul", "h w", "all"), *limits, nothing], vectors())
    assert caught.value.message.endswith("it has y float32 [1, 0].")


def test_outputs_that_are_not_judged_are_said_unless_a_metric_sees_them() -> None:
    found = Behaviour(family="classifier", batch="free", padding="none", judged=("y",), others=("h", "c"))
    assert found.notes()[1:] == ["Accuracy is measured on y; the other outputs (h, c) are not judged."]
    assert found.notes(by_metric=True) == []
