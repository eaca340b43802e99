"""What reads each kind of input: the same functions that the command line calls, as far as the bytes are looked at."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

Fields = dict[str, Any]


def export(samples: bool = True, load: bool = False, trace: bool = False, judge: bool = False, **fields: Any) -> None:
    """Plan an export; then make its samples, load the model, trace it, or judge it."""
    from pipeline.config.job import Job
    from pipeline.core.run_stages import run_stages
    from pipeline.core.store import Store
    from pipeline.core.types import silent
    from pipeline.plan.build import make_plan

    given = {"target": "target.toml", "recipe": "w8a8-dynamic", "calibration_samples": 12, **fields}
    plan = make_plan(Job.from_data(given, "the command line"))
    streams = any(stage.name.startswith("steps.") for stage in plan.stages)  # a traced graph gives their states
    roles = (*(("samples", "steps") if samples else ()), *(("trace.float",) if trace or (samples and streams) else ()))
    roles += ("probe", "judge") if judge else ()
    wanted = [stage for stage in plan.stages if stage.name.startswith(roles)] if roles else []
    store = Store(Path("store"))
    store.prepare()
    outcomes = run_stages(wanted, store, lambda _: silent, lambda *_: None)
    for name in ("samples.calibration", "samples.evaluation"):
        if name in outcomes:
            outcomes[name].artifact.file("artifact.json")
    if load:
        _load(plan)


def _load(plan: Any) -> None:
    """As the stages that need the PyTorch model do, with libraries kept quiet."""
    from pipeline.core.run_stages import run_stages
    from pipeline.core.stage import Stage
    from pipeline.core.store import Store
    from pipeline.core.types import silent

    traced = next(stage for stage in plan.stages if stage.name == "trace.float")
    stage = Stage("load", 1, "benchmarks.fuzz.probes:load_stage", traced.config, {}, (), traced.local, traced.models)
    run_stages([stage], Store(Path("store")), lambda _: silent, lambda *_: None)


def load_stage(context: Any) -> dict[str, Any]:
    """Stage function: the model is loaded, and nothing is done with it."""
    from pipeline.source.torch_model import load_source, wrap

    wrap(load_source(context.model), context.model)
    return {}


def data(spec: str) -> None:
    """Every sample of a set, and every label."""
    from pipeline.data.datasets import load_evaluation

    for dataset in load_evaluation(spec):
        for _ in islice(dataset.samples, 100):
            pass
        for _ in islice(dataset.labels or (), 100):
            pass


def bundle(folder: str) -> None:
    from pipeline.bundle.verify import verify
    from pipeline.cli.lists import inspect_bundle
    from pipeline.cli.terminal import output_console

    inspect_bundle(Path(folder), output_console())
    verify(folder)


def example(folder: str) -> None:
    """What `check` reads of a bundle before it measures."""
    from pipeline.bundle.example_feed import example_feed
    from pipeline.bundle.manifest import read_manifest
    from pipeline.config.target import Shape

    read_manifest(Path(folder))
    example_feed(Path(folder), Shape())


def baseline(path: str) -> None:
    from pipeline.report.write import read_report, write_reports

    report = read_report(Path(path))
    Path("out").mkdir(exist_ok=True)
    write_reports(report, Path("out"))


def metric(spec: str) -> None:
    from pipeline.checks.user_metric import call, load_user_metric

    loaded = load_user_metric(spec, None)
    assert loaded is not None  # noqa: S101
    call(loaded.function, [{"y": 1.0}], [1])


def references(path: str) -> None:
    from pipeline.checks.user_metric import read_references

    read_references(Path(path))


def command(*arguments: str) -> int:
    from pipeline.cli.main import main

    return main(list(arguments))
