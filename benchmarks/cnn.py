"""Convolutional networks under static INT8: what it costs in accuracy, and what it gains in speed."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import latency, networks, trained
from benchmarks.data import folder
from benchmarks.row import Measured
from benchmarks.training_time import run_plan
from pipeline.checks.accuracy import measure_accuracy
from pipeline.checks.answers import ANSWERS
from pipeline.config.job import Job
from pipeline.config.loading import load_target
from pipeline.core.artifact import Artifact
from pipeline.core.report_types import DatasetAccuracy
from pipeline.plan.build import make_plan
from pipeline.runtime.behaviour import behaviour_in

RECIPES = Path(__file__).parent / "recipes"
_CIFAR = ("cifar10_jpeg/train_20000.npz", "cifar10_jpeg/test_even.npz")


@dataclass(frozen=True)
class Network:
    """`model`: gives what `edge export --model` takes. `recipe`: a file in recipes/, or a recipe's name."""

    model: Callable[[], str]
    recipe: str
    calibration: str
    evaluation: str
    target: str = "car"


def _given(factory: str) -> Callable[[], str]:
    return lambda: f"{folder() / 'models.py'}:{factory}"


def _mobile(factory: str) -> Callable[[], str]:
    return lambda: trained.source(factory) if factory in trained.TRAININGS else f"{networks.__file__}:{factory}"


NETWORKS = {
    "resnet20": Network(_given("resnet20"), "cifar.toml", *_CIFAR),
    "resnet56": Network(_given("resnet56"), "cifar.toml", *_CIFAR),
    "squeezenet": Network(_given("squeezenet"), "squeezenet.toml", "imagenet", "imagenet"),
    "kws": Network(_given("kws"), "kws.toml", "kws/kws_even.npz", "kws/kws_even.npz"),
    "efficientnet_lite0": Network(
        _mobile("efficientnet_lite0"), "efficientnet_lite.toml", "imagenet", "imagenet", "phone"
    ),
    "mobilenet_v2": Network(_mobile("mobilenet_v2"), "cifar64.toml", *_CIFAR, "phone"),
    "mobilenet_v3": Network(_mobile("mobilenet_v3"), "cifar64.toml", *_CIFAR, "phone"),
    "vit": Network(_mobile("vit"), "w8a8", *_CIFAR, "phone"),
}
"""Where only one set is given, networks are calibrated on every fifth sample of the 500 that they are scored on."""
MOBILE = ("efficientnet_lite0", "mobilenet_v2", "mobilenet_v3", "vit")


@cache
def artifacts(name: str) -> dict[str, Artifact]:
    """The stages' results of an export of a network, from the store where they are there."""
    network = NETWORKS[name]
    own = RECIPES / network.recipe
    plan = make_plan(
        Job(
            model=network.model(),
            target=network.target,
            recipe=str(own) if own.is_file() else network.recipe,
            calibration_data=str(data(network.calibration)),
            eval_data=(str(data(network.evaluation)),),
        )
    )
    return run_plan(plan)


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


@cache
def speedup(name: str) -> Measured:
    """Float latency over bundle latency; beside it float's ms."""
    made = artifacts(name)
    return latency.speedup(made["bundle"], made["trace.float"], load_target(NETWORKS[name].target))


def worst_drop() -> Measured:
    """Of the networks for phones."""
    return max((drop(name) for name in MOBILE), key=lambda one: one.value)


def worst_speedup() -> Measured:
    """Of the networks for phones."""
    return min((speedup(name) for name in MOBILE), key=lambda one: one.value)
