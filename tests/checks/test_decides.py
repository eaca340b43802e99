"""A budget that a model with destroyed weights meets decides nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.checks.budgets.metric import METRICS
from pipeline.checks.decides import Limit, ask_tried, run
from pipeline.checks.destroyed import destroy
from pipeline.config.loading import load_target
from pipeline.config.target import Target
from pipeline.core.artifact import Artifact
from pipeline.core.errors import UsageError
from pipeline.core.report_types import DatasetAccuracy
from pipeline.core.stage import StageContext
from pipeline.core.types import silent
from pipeline.data.samples import DATASET, write_samples
from pipeline.graph.files import load_model, save_graphs
from pipeline.runtime.behaviour import Behaviour
from pipeline.tasks.registry import OUTPUTS

GENERATOR = np.random.default_rng(3)
SAMPLES = GENERATOR.normal(size=(40, 8)).astype(np.float32)
WEIGHT = GENERATOR.normal(size=(8, 4)).astype(np.float32)
LIMITS = {"max_accuracy_drop": {"limit": 1.0, "required": True}}
FREE = Behaviour(family="classifier", batch="free", padding="none")


def graph_of(folder: Path, weight: np.ndarray, bias: np.ndarray) -> Path:
    """y = x w + b."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    folder.mkdir()
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], constants), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    save_graphs(folder, {"model": ir.from_proto(model)})
    return folder


def ask(
    folder: Path,
    *,
    weight: np.ndarray = WEIGHT,
    bias: np.ndarray | None = None,
    labels: list[object] | None = None,
    samples: np.ndarray = SAMPLES,
    behaviour: Behaviour = FREE,
    limits: dict[str, object] | None = None,
    metric: dict[str, object] | None = None,
) -> list[str]:
    """The notes of the stage on one set."""
    bias = np.zeros(weight.shape[1], np.float32) if bias is None else bias
    sets = folder / "evaluation"
    (sets / "0").mkdir(parents=True)
    write_samples(sets / "0", [{"x": row[None]} for row in samples])
    record = {"name": "set", "labels": labels, "pairs": False, "samples": len(samples)}
    (sets / "0" / DATASET).write_text(json.dumps(record))
    inputs = {
        "float": Artifact(graph_of(folder / "float", weight, bias), "f", "f", "", {}),
        "evaluation": Artifact(sets, "e", "e", "", {}),
        "probe": Artifact(folder, "p", "p", "", behaviour.model_dump(mode="json")),
    }
    (folder / "out").mkdir()
    config = {"limits": limits or LIMITS, "given": metric}
    found = run(StageContext(config, inputs, folder / "out", silent))["notes"]
    assert list((folder / "out").iterdir()) == []
    return found


def test_a_judge_that_can_fail(tmp_path: Path) -> None:
    assert ask(tmp_path) == []


def test_a_classifier_that_always_answers_the_same(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        ask(tmp_path, bias=np.array([0, 99, 0, 0], np.float32))
    assert caught.value.message == (
        "The budget max_accuracy_drop cannot fail on 'set': a model that answers every sample alike drops 0.00 points "
        "there (agreement), and 1 are allowed."
    )
    assert "--eval-data" in caught.value.remedy
    assert "--budget max_accuracy_drop=" in caught.value.remedy


def test_labels_of_one_class_decide_nothing(tmp_path: Path) -> None:
    """Float is right on the samples that it gives class 0; a model that says 0 always is right on them too."""
    chosen = SAMPLES[(SAMPLES @ WEIGHT).argmax(1) == 0]
    with pytest.raises(UsageError, match=r"answers every sample alike drops 0\.00 points there"):
        ask(tmp_path, samples=chosen, labels=[0.0] * len(chosen))


def test_labels_that_float_does_not_follow_decide_nothing(tmp_path: Path) -> None:
    wrong = [float((SAMPLES @ WEIGHT)[place].argmin()) for place in range(40)]
    with pytest.raises(UsageError, match="The budget max_accuracy_drop cannot fail"):
        ask(tmp_path, labels=wrong)


def test_one_logit_is_judged_by_its_ranks(tmp_path: Path) -> None:
    """Over one logit the top class always agrees; as a number it can fail, also where its labels are noise."""
    behaviour = Behaviour(family="scores", batch="free", padding="none")
    noise = list(GENERATOR.uniform(size=40))
    assert ask(tmp_path, weight=WEIGHT[:, :1], behaviour=behaviour, labels=noise) == []


def test_an_optional_budget_is_only_noted(tmp_path: Path) -> None:
    limits = {"max_accuracy_drop": {"limit": 1.0, "required": False}}
    (note,) = ask(tmp_path, bias=np.array([0, 99, 0, 0], np.float32), limits=limits)
    assert note.startswith("The budget max_accuracy_drop cannot fail on 'set'")


def test_a_limit_that_no_model_misses_is_said(tmp_path: Path) -> None:
    limits = {
        "max_accuracy_drop": {"limit": 100.0, "required": True},
        "min_agreement": {"limit": 0.0, "required": True},
    }
    assert ask(tmp_path, limits=limits) == [
        "The budget max_accuracy_drop cannot fail: its limit, 100 points, lets any model pass.",
        "The budget min_agreement cannot fail: its limit, 0 share, lets any model pass.",
    ]


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    behaviour = Behaviour(family="scores", batch="free", padding="none")
    with pytest.raises(UsageError) as caught:
        ask(tmp_path, behaviour=behaviour, labels=[[float(n), 0.5 * n] for n in range(40)])
    assert caught.value.message.startswith("The model cannot be judged on 'set': outputs (40, 4) need as many numbers")


def metric_file(folder: Path, body: str) -> dict[str, object]:
    (folder / "mine.py").write_text(f"def mine(outputs, references):\n    {body}\n")
    return {"spec": f"{folder / 'mine.py'}:mine", "references": None}


RIGHT = "return 100 * sum(o['y'].argmax() == int(r) for o, r in zip(outputs, references)) / len(references)"


def test_a_metric_of_ones_own_must_be_able_to_fail(tmp_path: Path) -> None:
    labels = [float(row.argmax()) for row in SAMPLES @ WEIGHT]
    assert ask(tmp_path / "a", labels=labels, metric=metric_file(tmp_path, RIGHT)) == []
    with pytest.raises(UsageError, match=r"a model with destroyed weights drops 0\.00 points there \(mine\)"):
        ask(tmp_path / "b", labels=labels, metric=metric_file(tmp_path, "return 1.0"))


def test_a_metric_that_does_not_fit_is_refused_with_its_contract(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        ask(tmp_path, labels=[0.0] * 40, metric=metric_file(tmp_path, "return outputs['y'].mean()"))
    assert caught.value.message.startswith("The metric 'mine' failed: TypeError")
    assert "outputs: a list with a dict per sample" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "limit", "can_fail"),
    [
        ("max_accuracy_drop", 99.9, True),
        ("max_accuracy_drop", 100, False),
        ("max_perplexity_increase", 150, True),
        ("min_agreement", 0.1, True),
    ],
)
def test_limits(name: str, limit: float, can_fail: bool) -> None:
    assert Limit(name, limit, required=True).can_fail is can_fail


@pytest.mark.parametrize(
    ("name", "limit", "said"),
    [
        ("max_accuracy_drop", 5, "it drops 2.50 points there (agreement), and 5 are allowed"),
        ("max_perplexity_increase", 5, "it has 2.5 % there, and 5 are allowed"),
        ("max_kl_per_token", 3, "it has 2.5 nats there, and 3 are allowed"),
        ("min_agreement", 1, "it scores 2.500 there, and 1 are asked for"),
    ],
)
def test_what_is_said_of_a_limit_that_is_met(name: str, limit: float, said: str) -> None:
    result = DatasetAccuracy(dataset="d", samples=1, labelled=False, primary="agreement", scores={}, drop=2.5)
    assert Limit(name, limit, required=True).met(2.5, result, "it") == said


def test_what_holds_a_limit() -> None:
    result = DatasetAccuracy(
        dataset="s", samples=1, labelled=False, primary="agreement", scores={"agreement": 0.9}, drop=10
    )
    for name, limit, holds in (("max_accuracy_drop", 10, True), ("min_agreement", 0.91, False)):
        told = METRICS.get(name).on_set(OUTPUTS.get("classifier"))
        assert Limit(name, limit, required=True).holds(told(result)) is holds
    assert METRICS.get("min_agreement").on_set(OUTPUTS.get("embedding")) is None


def test_destroyed_weights_keep_their_spread_and_nothing_else(tmp_path: Path) -> None:
    bias = np.arange(4, dtype=np.float32)
    model = load_model(graph_of(tmp_path / "g", 3 * WEIGHT, bias) / "model.onnx")
    assert destroy(model) == 1
    drawn = model.graph.initializers["w"].const_value.numpy()
    assert drawn.std() == pytest.approx((3 * WEIGHT).std(), rel=0.3)
    assert abs(np.corrcoef(drawn.ravel(), WEIGHT.ravel())[0, 1]) < 0.5
    assert (model.graph.initializers["b"].const_value.numpy() == bias).all()
    again = load_model(tmp_path / "g" / "model.onnx")
    destroy(again)
    assert (again.graph.initializers["w"].const_value.numpy() == drawn).all()


def test_weights_in_branches_and_behind_constant_steps_are_found() -> None:
    """If(cond) with x (w1 transposed) in one branch and x w2 in the other; an index table is none."""

    def branch(name: str, constant: str, transposed: bool) -> onnx.GraphProto:
        table = numpy_helper.from_array(np.ones((4, 4), np.float32), constant)
        nodes = [helper.make_node("Transpose", [constant], [f"{name}.t"])] if transposed else []
        nodes.append(helper.make_node("MatMul", ["x", f"{name}.t" if transposed else constant], [f"{name}.y"]))
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}.y", 1, None)], [table])

    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("then", "w1", True), else_branch=branch("else", "w2", False)
    )
    inputs = [helper.make_tensor_value_info("x", 1, ["n", 4]), helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", 1, None)])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    assert destroy(model) == 2


def test_a_deep_residual_graph_is_searched_once() -> None:
    """x + x, two thousand times over: 2 ** 2000 paths lead from the last value to the first."""
    nodes = [helper.make_node("Add", [f"h{n}", f"h{n}"], [f"h{n + 1}"]) for n in range(2000)]
    nodes.append(helper.make_node("MatMul", ["h2000", "w"], ["y"]))
    x = helper.make_tensor_value_info("h0", TensorProto.FLOAT, ["n", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(WEIGHT, "w")])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    assert destroy(model) == 1


def test_noise_beside_a_large_offset_cannot_fail(tmp_path: Path) -> None:
    """The signal of outputs around 1000 is all offset: any model has 50 dB."""
    bias = np.full(4, 1000, np.float32)
    with pytest.raises(UsageError, match=r"min_sqnr_db cannot fail on .*, and 20 are asked for"):
        ask(tmp_path, bias=bias, limits={"min_sqnr_db": {"limit": 20.0, "required": True}})


def test_noise_can_fail_without_an_offset(tmp_path: Path) -> None:
    assert ask(tmp_path, limits={"min_sqnr_db": {"limit": 20.0, "required": True}}) == []


def phone(**limits: float) -> Target:
    """The target with these budgets, required, in place of its own."""
    target = load_target("phone")
    budget = target.budgets["max_accuracy_drop"]
    budgets = {name: budget.model_copy(update={"limit": limit}) for name, limit in limits.items()}
    return target.model_copy(update={"budgets": budgets})


def dropped(points: float) -> dict[str, dict[str, DatasetAccuracy]]:
    found = DatasetAccuracy(dataset="s", samples=40, labelled=False, primary="agreement", scores={}, drop=points)
    return {"s": {"a model with destroyed weights": found}}


def test_another_machine_asks_what_became_of_the_destroyed_models() -> None:
    kind = OUTPUTS.get("classifier")
    assert ask_tried(phone(max_accuracy_drop=1), kind, dropped(60)) == ()
    with pytest.raises(UsageError) as refused:
        ask_tried(phone(max_accuracy_drop=70), kind, dropped(60))
    assert refused.value.message == (
        "The budget max_accuracy_drop cannot fail on 's': a model with destroyed weights drops 60.00 points there "
        "(agreement), and 70 are allowed."
    )
    assert ask_tried(phone(max_accuracy_drop=100), kind, dropped(60)) == (
        "The budget max_accuracy_drop cannot fail: its limit, 100 points, lets any model pass.",
    )
    assert ask_tried(phone(max_accuracy_drop=1), kind, {}) == (
        "Nobody tried here whether a model with destroyed weights can fail.",
    )
