"""A bundle's answers on several CPUs: real sessions here stand for tiers, one of them with other answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.bundle.golden import write_golden
from pipeline.checks import tiers
from pipeline.checks.answers import write_answers
from pipeline.checks.float_reference import FloatReference
from pipeline.checks.tiers import Inference, check_tiers, spread
from pipeline.config.loading import load_target
from pipeline.config.target import Target
from pipeline.core.errors import StageError
from pipeline.core.report_types import TierCheck
from pipeline.core.types import Evidence
from pipeline.data.samples import DATASET, write_samples
from pipeline.devices.arm64.runner import EmulatedRunner
from pipeline.devices.arm64.tiers import TIERS
from pipeline.devices.host_runner import HOST
from pipeline.devices.runner import Runner, subject_of
from pipeline.devices.worker import Answers, Request
from pipeline.graph.files import Graphs, graphs_in, load_model, save_graphs
from pipeline.runtime.behaviour import Behaviour
from pipeline.runtime.session import parallel_session

SAMPLES, ROWS = 40, 64


class Off:
    """A CPU on which the first value of every answer is larger by `by`."""

    evidence = Evidence.EMULATED

    def __init__(self, by: float) -> None:
        self._by = by

    def run(self, request: Request, timeout_s: float) -> dict[str, Any]:
        result = HOST.run(request, timeout_s)
        assert isinstance(request, Answers)
        if request.count == 0:
            return result
        path = Path(request.outputs)
        with path.open("rb") as file:
            arrays = [np.load(file) for _ in range(result["done"])]
        with path.open("wb") as file:
            for array in arrays:
                array[0, 0] += self._by
                np.save(file, array)
        return result

    def info(self) -> Any:
        return HOST.info()


class Broken(Off):
    """A CPU on which nothing runs."""

    def run(self, *_: object) -> dict[str, Any]:
        raise StageError("the tier asimd met an instruction that it does not have.")


@pytest.fixture
def whole(matmul: Path, tmp_path: Path) -> tuple[Path, Graphs, FloatReference, Path]:
    """(bundle with golden inputs, its graphs, what float answered, what the bundle answered): all of one model, that of
    relu(x @ w)."""
    generator = np.random.default_rng(1)
    rows = [generator.normal(size=(1, ROWS)).astype(np.float32) for _ in range(SAMPLES)]
    bundle, sets, out = tmp_path / "bundle", tmp_path / "evaluation" / "0", tmp_path / "answers"
    for folder in (bundle, sets, out):
        folder.mkdir(parents=True)
    save_graphs(bundle, {"model": load_model(matmul)})
    graphs = graphs_in(bundle)
    session = parallel_session(graphs)
    write_golden(bundle, [({"x": row}, {"y": session.run(["y"], {"x": row})[0]}) for row in rows[:2]], ())
    write_samples(sets, [{"x": row} for row in rows])
    (sets / DATASET).write_text(json.dumps({"name": "set", "labels": None, "pairs": False, "pads": {}}))
    behaviour = Behaviour(family="embedding", batch="free", padding="none", judged=("y",))
    write_answers(session, behaviour, sets.parent, out)
    reference = FloatReference(None, sets.parent, out, sets.parent, behaviour)
    return bundle, graphs, reference, out


def checked(whole: tuple[Path, Graphs, FloatReference, Path], *runners: Runner) -> list[TierCheck]:
    bundle, graphs, reference, answers = whole
    named = dict(zip(("asimd", "i8mm"), runners, strict=False))
    return list(check_tiers(bundle, graphs, target(), named, reference, answers))


def target() -> Target:
    return load_target("phone").model_copy(update={"tier_samples": 16})


def test_a_cpu_that_answers_alike(whole: Any) -> None:
    (found,) = checked(whole, HOST)
    assert (found.tier, found.golden, found.matched, found.difference, found.failure) == ("asimd", 2, 2, 0.0, "")
    (accuracy,) = found.accuracy
    assert (accuracy.dataset, accuracy.samples, accuracy.whole) == ("set", 16, SAMPLES)
    assert (accuracy.same, accuracy.drop, accuracy.host_drop, accuracy.sqnr_db) == (True, 0.0, 0.0, 300.0)


def test_a_cpu_that_answers_otherwise(whole: Any) -> None:
    alike, other = checked(whole, HOST, Off(100.0))
    assert alike.accuracy[0].same
    assert (other.tier, other.evidence, other.matched) == ("i8mm", Evidence.EMULATED, 0)
    assert other.difference is not None and other.difference > 1 > other.tolerance == 0.02
    assert not other.accuracy[0].same
    assert other.accuracy[0].drop > 10 > other.accuracy[0].host_drop == 0.0


def test_a_cpu_on_which_nothing_runs_stops_no_other(whole: Any) -> None:
    broken, alike = checked(whole, Broken(0.0), HOST)
    assert (broken.matched, broken.accuracy) == (0, ())
    assert broken.failure == "the tier asimd met an instruction that it does not have."
    assert alike.matched == 2


def test_without_the_float_model_golden_inputs_run_alone(whole: Any) -> None:
    bundle, graphs, _, _ = whole
    (found,) = check_tiers(bundle, graphs, target(), {"asimd": HOST}, None, None)
    assert (found.matched, found.accuracy) == (2, ())


def test_samples_are_spread_over_a_set() -> None:
    assert spread(100, 5) == [0, 25, 50, 74, 99]
    assert spread(3, 5) == [0, 1, 2]
    assert spread(1, 5) == [0]


def test_answers_stand_where_instructions_cannot_be_counted(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise StageError("the counter crashed.")

    runner = EmulatedRunner(TIERS["asimd"])
    monkeypatch.setattr(EmulatedRunner, "run", lambda _, request, seconds: HOST.run(request, seconds))
    monkeypatch.setattr(EmulatedRunner, "info", lambda _: HOST.info())
    monkeypatch.setattr(tiers, "count", fails)
    bundle, graphs, reference, answers = whole
    inference = Inference(subject_of(graphs, bundle, target().runtime))
    (found,) = check_tiers(bundle, graphs, target(), {"asimd": runner}, reference, answers, inference=inference)
    assert (found.matched, found.failure, found.uncounted) == (2, "", "the counter crashed.")
    (here,) = check_tiers(bundle, graphs, target(), {"asimd": HOST}, None, None, inference=inference)
    assert here.uncounted == "they are counted on emulated Arm CPUs alone"
