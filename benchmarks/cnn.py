"""Convolutional networks under static INT8: what it costs in accuracy, and what it gains in speed."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import latency
from benchmarks.data import folder
from benchmarks.row import Measured
from pipeline.checks.accuracy import measure_accuracy
from pipeline.checks.answers import ANSWERS
from pipeline.config.job import Job
from pipeline.config.loading import load_target
from pipeline.core.artifact import Artifact
from pipeline.core.report_types import DatasetAccuracy
from pipeline.core.run_stages import run_stages
from pipeline.core.store import Store, default_store
from pipeline.core.types import silent
from pipeline.plan.build import make_plan
from pipeline.runtime.behaviour import behaviour_in

RECIPES = Path(__file__).parent / "recipes"
TARGET = "car"
NETWORKS = {
    "resnet20": ("resnet20", "cifar", "cifar10_jpeg/train_20000.npz", "cifar10_jpeg/test_even.npz"),
    "resnet56": ("resnet56", "cifar", "cifar10_jpeg/train_20000.npz", "cifar10_jpeg/test_even.npz"),
    "squeezenet": ("squeezenet", "squeezenet", "imagenet", "imagenet"),
    "kws": ("kws", "kws", "kws/kws_even.npz", "kws/kws_even.npz"),
}
"""Name -> (factory, recipe, calibration data, evaluation data). Of the last two only one set is given: they are
calibrated on every fifth sample of the 500 that they are scored on."""


@cache
def artifacts(name: str) -> dict[str, Artifact]:
    """The stages' results of an export of a network, from the store where they are there."""
    factory, recipe, calibration, evaluation = NETWORKS[name]
    plan = make_plan(
        Job(
            model=f"{folder() / 'models.py'}:{factory}",
            target=TARGET,
            recipe=str(RECIPES / f"{recipe}.toml"),
            calibration_data=str(data(calibration)),
            eval_data=(str(data(evaluation)),),
        )
    )
    store = Store(default_store())
    store.prepare()
    outcomes = run_stages(plan.stages, store, lambda _: silent, lambda *_: None)
    return {stage: outcome.artifact for stage, outcome in outcomes.items()}


def data(name: str) -> Path:
    """Where the data set called `name` in `NETWORKS` is."""
    return _imagenet() if name == "imagenet" else folder() / name


@cache
def _imagenet() -> Path:
    """The 500 crops as one .npz file: a flat folder has no labels, these have the class in their names."""
    files = sorted((folder() / "imagenet1k_224").glob("*.jpg"))
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place)
    np.savez(place / "imagenet.npz", x=images, y=np.array([int(file.name.split("_")[0]) for file in files]))
    return place / "imagenet.npz"


@cache
def _accuracy(name: str) -> DatasetAccuracy:
    made = artifacts(name)
    (result,) = measure_accuracy(
        behaviour_in(made), made["samples.evaluation"].path, made["reference"].path, made[ANSWERS].path
    )
    return result


def drop(name: str) -> Measured:
    """Points of accuracy lost, beside float's accuracy."""
    result = _accuracy(name)
    return Measured(result.drop, result.scores["accuracy_float"])


def agreement(name: str) -> Measured:
    """Share of samples with float's top class."""
    return Measured(_accuracy(name).scores["agreement"], 1.0)


def sqnr_db(name: str) -> Measured:
    """Of the logits over 64 calibration samples, beside the largest error in the logits' standard deviations."""
    facts = artifacts(name)["compare"].metadata["outputs"][0]
    return Measured(facts["sqnr_db"], facts["max_error_in_std"])


def speedup(name: str) -> Measured:
    """Float latency over bundle latency; beside it float's ms."""
    made = artifacts(name)
    return latency.speedup(made["bundle"], made["trace.float"], load_target(TARGET))
