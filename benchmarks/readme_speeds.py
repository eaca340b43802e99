"""The speed column of README's first table, all in one run: the bundles of the default model that need no training,
the float model, and the plain `quantize_dynamic` file with and without our session option."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.latency import in_one_run
from benchmarks.minilm import MODEL, artifacts, stsb_dev_of, top10_of
from benchmarks.peers import kept_plain_dynamic, untuned
from benchmarks.row import Measured, Row
from pipeline.bundle.example_feed import example_feed
from pipeline.checks.timing import speed_figure
from pipeline.config.loading import load_target
from pipeline.devices.runner import subject_of
from pipeline.devices.worker import Subject
from pipeline.runtime.feeds import write_feed

BUNDLES = {
    "w8a8-dynamic": "phone",
    "w8a8": "car",
    "w4": "robot",
    "w4a8": "robot",
    "w4a8-dynamic": "robot",
    "w4a8-static": "robot",
}
"""Recipe -> the target that it is shown for."""
_PLAIN, _TUNED, _TUNED_AS = "plain_dynamic", "plain_dynamic_tuned", "phone"


def speed(name: str) -> Measured:
    """Float latency over that of the file, beside float's ms."""
    return _speeds()[name]


@cache
def _speeds() -> dict[str, Measured]:
    with tempfile.TemporaryDirectory() as scratch:
        subjects = _subjects(Path(scratch))
        turns = in_one_run(list(subjects.values()), max_seconds=480.0)
    float_ms = float(np.median(turns.samples_ms(0)))
    figures = {name: speed_figure(turns, 0, place) for place, name in enumerate(subjects)}
    for name, figure in figures.items():
        print(f"{name:<22} {figure.value:.3f}x [{figure.low or 0:.3f}, {figure.high or 0:.3f}] {figure.note}")
    return {name: Measured(figure.value, float_ms) for name, figure in figures.items()}


def _subjects(scratch: Path) -> dict[str, Subject]:
    """The float model first. Each bundle has its target's settings, and the inputs that its own app would give."""
    found: dict[str, Subject] = {}
    for recipe, target in BUNDLES.items():
        made, profile = artifacts(recipe, target), load_target(target)
        inputs = scratch / f"{recipe}.npz"
        write_feed(inputs, example_feed(made["bundle"].path, profile.shape))
        bundle = subject_of(made["bundle"].path / MODEL, inputs, profile.runtime)
        found.setdefault("float", replace(bundle, model=str(made["trace.float"].path / MODEL)))
        found[recipe] = bundle
    runtime, inputs = load_target(_TUNED_AS).runtime, Path(found["float"].inputs)
    found[_TUNED] = subject_of(kept_plain_dynamic(), inputs, runtime)
    found[_PLAIN] = subject_of(kept_plain_dynamic(), inputs, untuned(runtime))
    return found


def plain_megabytes() -> Measured:
    """MB (10^6 bytes) of the plain file, beside the float file's; both hold their weights."""
    plain = kept_plain_dynamic()
    return Measured(plain.stat().st_size / 1e6, plain.with_name("float.onnx").stat().st_size / 1e6)


def plain_score(which: str) -> Measured:
    """`stsb_dev` or `top10` of the plain file (the session option changes neither)."""
    original = artifacts("w8a8-dynamic", _TUNED_AS)["trace.float"].path / MODEL
    score = stsb_dev_of if which == "stsb_dev" else top10_of
    return score(kept_plain_dynamic(), original, untuned(load_target(_TUNED_AS).runtime))


ROWS = [
    *(
        Row(f"minilm.readme_speeds.{name}", "x", "float32, ms (1 thread, 128 tokens, one run)", partial(speed, name))
        for name in (*BUNDLES, _PLAIN, _TUNED)
    ),
    Row("minilm.plain_dynamic.mb", "MB", "float32", plain_megabytes),
    Row("minilm.plain_dynamic.stsb_dev", "Spearman x100", "float32", partial(plain_score, "stsb_dev")),
    Row("minilm.plain_dynamic.top10", "share", "float32", partial(plain_score, "top10")),
]
