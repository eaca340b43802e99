"""Metrics of libraries, by stand-ins with their signatures, and by the libraries where they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checks.library_metrics import adapted
from pipeline.checks.user_metric import load_metric

LOGITS = [{"logits": np.array([[2.0, 1.0, 0.0]])}, {"logits": np.array([[0.0, 1.0, 3.0]])}]
NUMBERS = [{"y": np.array([[1.5]])}, {"y": np.array([[2.0]])}]


def accuracy_score(y_true: Any, y_pred: Any, *, normalize: bool = True) -> float:
    assert [y_true.tolist(), y_pred.tolist()] == [[0, 1], [0, 2]]
    return 0.5


def roc_auc_score(y_true: Any, y_score: Any) -> float:
    assert y_score.tolist() == pytest.approx([1 / (1 + np.e), 1 / (1 + np.exp(-1))])
    return 0.75


def mean_squared_error(y_true: Any, y_pred: Any) -> float:
    return float(np.mean((y_true - y_pred) ** 2))


def multiclass_accuracy(preds: Any, target: Any, num_classes: int = 3) -> Any:
    assert tuple(preds.shape) == (2, 3)
    assert target.tolist() == [0, 1]
    return preds.new_tensor(0.5)


def own(outputs: Any, references: Any) -> float:
    return float(len(outputs) - len(references))


class Accumulates:
    """As torchmetrics.Metric."""

    higher_is_better = False

    def reset(self) -> None:
        self.seen = 0

    def update(self, preds: Any, target: Any) -> None:
        self.seen += len(preds) * len(target) // 2

    def compute(self) -> float:
        return float(self.seen)


class Loaded:
    """As evaluate.EvaluationModule."""

    def add_batch(self) -> None: ...

    def compute(self, predictions: Any, references: Any) -> dict[str, float]:
        assert [list(predictions), references] == [[0, 2], [0, 1]]
        return {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("found", "outputs", "references", "points"),
    [
        (accuracy_score, LOGITS, [0.0, 1.0], 50.0),
        (accuracy_score, LOGITS, [{"class": "0"}, {"class": "1"}], 50.0),
        (roc_auc_score, [{"y": np.array([[1.0, 0.0]])}, {"y": np.array([[1.0, 2.0]])}], [0, 1], 75.0),
        (mean_squared_error, NUMBERS, [1.0, 2.5], -0.25),
        (multiclass_accuracy, LOGITS, [0, 1], 50.0),
        (Accumulates, LOGITS, [0, 1], -2.0),
        (Accumulates(), LOGITS, [0, 1], -2.0),
        (Loaded(), LOGITS, [0.0, 1.0], 50.0),
    ],
)
def test_it_works_as_it_is(found: Any, outputs: Any, references: Any, points: float) -> None:
    metric = adapted(found, getattr(found, "__name__", "metric"))
    assert metric is not None
    assert metric(outputs, references) == pytest.approx(points)


def test_what_is_of_no_library() -> None:
    assert adapted(own, "mine") is None
    assert adapted(3, "three") is None


def test_a_metric_of_a_users_file_may_be_a_librarys(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text("def f1_score(y_true, y_pred):\n    return (y_true == y_pred).mean()\n")
    assert load_metric(f"{file}:f1_score")(LOGITS, [0, 2]) == 100.0


def test_a_module_may_be_named() -> None:
    assert load_metric("operator:eq") is not None


def test_scikit_learn() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    assert load_metric("sklearn.metrics:accuracy_score")(LOGITS, [0, 1]) == 50.0
    assert load_metric("sklearn.metrics:mean_squared_error")(NUMBERS, [1.0, 2.5]) == pytest.approx(-0.25)


def test_torchmetrics() -> None:
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    assert load_metric("torchmetrics.functional:mean_squared_error")(NUMBERS, [1.0, 2.5]) == pytest.approx(-0.25)
    assert load_metric("torchmetrics:MeanSquaredError")(NUMBERS, [1.0, 2.5]) == pytest.approx(-0.25)
