"""A user's metric: found, called, and every mistake in it said in one message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.checks.metric_runs import with_metric
from pipeline.checks.user_metric import call, load_metric, load_user_metric, read_references
from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.core.report_types import DatasetAccuracy


def written(folder: Path, content: str, name: str = "m.py") -> Path:
    path = folder / name
    path.write_text(content)
    return path


def test_it_stands_in_front_of_our_own(tmp_path: Path) -> None:
    """Right: 2 of 2 in float, 1 of 2 in the bundle."""
    path = written(
        tmp_path,
        "def right(outputs, references):\n"
        "    return sum(o['y'].argmax() == int(r['label']) for o, r in zip(outputs, references))\n",
    )
    references = written(tmp_path, "id,label\na,1\nb,0\n", "refs.csv")
    metric = load_user_metric(f"{path}:right", references)
    assert metric is not None
    given = metric.references_for("set", None, 2)
    assert given == [{"id": "a", "label": "1"}, {"id": "b", "label": "0"}]
    of_float = [{"y": np.array([0, 1])}, {"y": np.array([1, 0])}]
    of_bundle = [{"y": np.array([0, 1])}] * 2
    ours = DatasetAccuracy(dataset="set", samples=2, labelled=False, primary="cosine", scores={"cosine": 1.0}, drop=0.0)
    result = with_metric(ours, metric.function, given, of_float, of_bundle)
    assert (result.primary, result.drop, result.labelled) == ("right", 1.0, True)
    assert result.scores == {"right": 1.0, "right_float": 2.0, "cosine": 1.0}


def test_labels_are_the_references_without_a_file(tmp_path: Path) -> None:
    metric = load_user_metric(f"{written(tmp_path, 'def f(o, r): return 1')}:f", None)
    assert metric is not None
    assert metric.references_for("set", [1, 2], 2) == [1, 2]
    with pytest.raises(UsageError, match="the data set 'set' has no labels"):
        metric.references_for("set", None, 2)
    with pytest.raises(UsageError, match="There are 2 references for the 3 samples of 'set'"):
        metric.references_for("set", [1, 2], 3)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("x = 1", "f", "m.py has no function 'f'."),
        ("x = 1", "x", "m.py has no function 'x'."),
        ("1 / 0", "f", "m.py cannot be imported: ZeroDivisionError: division by zero."),
        ("def f(:", "f", "m.py cannot be imported: SyntaxError"),
    ],
)
def test_what_is_no_metric(tmp_path: Path, content: str, name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_metric(f"{written(tmp_path, content)}:{name}")
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("spec", ["m.py", "absent.py:f", ":f", "m.py:"])
def test_spec_that_names_nothing(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_metric(spec)
    assert caught.value.message == f"--metric {spec!r} is not an existing file.py:name."


def raises(_: object, __: object) -> float:
    raise KeyError("y")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (raises, "The metric 'raises' failed: KeyError: 'y'."),
        (lambda _, __: None, "The metric '<lambda>' returned None, which is not a finite number."),
        (lambda _, __: "high", "The metric '<lambda>' returned 'high', which is not a finite number."),
        (lambda _, __: float("nan"), "The metric '<lambda>' returned nan, which is not a finite number."),
    ],
)
def test_metric_that_fails(metric, message: str) -> None:
    with pytest.raises(StageError) as caught:
        call(metric, [], [])
    assert caught.value.message == message


def test_references_are_checked(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="row 3 does not have 2 columns"):
        read_references(written(tmp_path, "a,b\n1,2\n3\n", "r.csv"))
    with pytest.raises(EdgeError, match="There is no file"):
        read_references(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="--references without --metric says nothing"):
        load_user_metric(None, tmp_path / "r.csv")


def test_a_metric_that_exits_does_not_end_the_check(tmp_path) -> None:
    (tmp_path / "leaving.py").write_text("import sys\n\n\ndef leave(outputs, references):\n    sys.exit(0)\n")
    with pytest.raises(StageError, match="The metric 'leave' failed: SystemExit: 0"):
        call(load_metric(f"{tmp_path / 'leaving.py'}:leave"), [], [])
    (tmp_path / "gone.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(UsageError, match=r"gone\.py cannot be imported: SystemExit: 0"):
        load_metric(f"{tmp_path / 'gone.py'}:leave")


@pytest.mark.parametrize("parameters", ["outputs", "outputs, references, more", "*, outputs, references"])
def test_a_function_of_other_arguments_is_refused_before_it_is_called(tmp_path: Path, parameters: str) -> None:
    (tmp_path / "own.py").write_text(f"def score({parameters}):\n    return 1.0\n")
    with pytest.raises(UsageError) as caught:
        load_metric(f"{tmp_path}/own.py:score")
    assert caught.value.message == "'score' of own.py cannot be called with two arguments."
