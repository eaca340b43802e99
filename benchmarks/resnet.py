"""ResNet-56 at half of its multiply-accumulates, recovered, against the whole network trained alike."""

from __future__ import annotations

from functools import cache, partial

import numpy as np

from benchmarks import latency
from benchmarks.data import folder
from benchmarks.row import Measured, Row
from benchmarks.training_time import cpu_seconds, run_plan
from pipeline.config.job import Job
from pipeline.config.loading import load_target
from pipeline.core.artifact import Artifact
from pipeline.core.store import default_store
from pipeline.data.samples import open_samples
from pipeline.graph.files import MODEL, file_of
from pipeline.plan.build import make_plan
from pipeline.runtime.infer import judged_outputs
from pipeline.runtime.session import make_session
from pipeline.tasks.registry import OUTPUTS

TARGET = "car"
_TRAIN, _TEST = "cifar10_jpeg/train_20000.npz", "cifar10_jpeg/test_even.npz"
# ONNX Runtime's blocked convolutions take 16 channels at a time (AVX-512), so that 16 channels made 8 cost the same:
# whole blocks go (those of least block influence first), and the later stages' 32 and 64 inner channels are halved. How
# many blocks of each stage: by short recoveries, judged on 4,000 training images that were left out of them.
_KEPT = ((0, 1, 2, 4, 7), (0, 1, 3, 4, 5, 6, 7, 8), (0, 1, 2, 4, 5, 6, 7, 8))
"""The blocks of each stage that stay."""
_CHANNELS = """
[[passes]]
pass = "prune"
unit = "channels"
importance = "{0}"
samples = 512
keep = {{ "layer2.*" = 16, "layer3.*" = 32 }}
"""
_TUCKER = """
[[passes]]
pass = "low_rank"
method = ["tucker2_whitened"]
target_macs = 0.5
samples = 512
"""


def _blocks() -> str:
    return "".join(
        f'\n[[passes]]\npass = "prune"\nunit = "layers"\nstacks = "layer{stage}"\nkeep = {list(keep)}\n'
        for stage, keep in enumerate(_KEPT, start=1)
    )


PASSES = {
    "full": ("", ""),
    **{score: (_blocks() + _CHANNELS.format(score), 'layers = "kept"\n') for score in ("taylor", "bn_scale", "random")},
    "tucker": (_TUCKER, ""),
}
"""Name -> the passes that compress, and what the training after them needs to know; `full` is the whole network."""
_EPOCHS = {"tucker": 5}
"""Of the second training: 16, and fewer for what is good enough sooner. The whole network gained nothing by either."""
_TRAINING = """
[[passes]]
pass = "distill"
epochs = {epochs}
batch_size = 64
learning_rate = 1e-3
precision = "bf16"
batch_norm = "train"
augment = "flip_shift"
losses = {{ {losses} }}
"""
_RECIPE = """
title = "ResNet-56, tuned on its labels, compressed, and taught by the tuned network"
scheme = "fp32"
task = "image-classification"

[calibration]
samples = 512

[inputs.x]
shape = ["batch", 3, 32, 32]

[preprocessing]
rescale = 0.00392156862745098
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""


def recipe(name: str) -> str:
    """All are tuned on labels for four epochs, then taught; the whole network too, by its tuned self."""
    compress, matching = PASSES[name]
    losses = "soft_labels = 1.0, hard_labels = 0.5, hidden_mse = 1.0"
    return (
        _RECIPE
        + _TRAINING.format(epochs=4, losses="hard_labels = 1.0")
        + compress
        + _TRAINING.format(epochs=_EPOCHS.get(name, 16), losses=losses)
        + 'teacher = "trained"\n'
        + matching
    )


@cache
def artifacts(name: str) -> dict[str, Artifact]:
    """The stages' results of an export, from the store where they are there."""
    place = default_store() / "recipes" / f"resnet56-{name}.toml"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(recipe(name), encoding="utf-8")
    job = Job(
        model=f"{folder() / 'models.py'}:resnet56",
        target=TARGET,
        recipe=str(place),
        calibration_data=str(folder() / _TRAIN),
        training_data=(str(folder() / _TRAIN),),
        eval_data=(str(folder() / _TEST),),
    )
    return run_plan(make_plan(job))


@cache
def accuracy(name: str) -> float:
    """Percent of the test half that the exported graph gets right."""
    made = artifacts(name)
    samples = open_samples(made["samples.evaluation"].path / "0")
    session = make_session(made["bundle"].path / file_of(MODEL), load_target(TARGET).runtime)
    logits = judged_outputs(session, samples, kind=OUTPUTS.get("classifier"), batch=64)
    with np.load(folder() / _TEST) as data:
        return float((logits.argmax(-1) == data["y"]).mean() * 100)


def drop(name: str) -> Measured:
    """Points below the whole network trained alike, beside that one's accuracy."""
    return Measured(accuracy("full") - accuracy(name), accuracy("full"))


def speedup(name: str) -> Measured:
    """Latency of the whole network over the smaller one's, both float32; beside it the whole one's ms."""
    return latency.speedup(artifacts(name)["bundle"], artifacts("full")["bundle"], load_target(TARGET))


def minutes(name: str) -> Measured:
    """CPU minutes of both its trainings, beside those of the whole network's."""
    return Measured(*(_minutes(one) for one in (name, "full")))


def _minutes(name: str) -> float:
    return sum(cpu_seconds(made) for key, made in artifacts(name).items() if "distill" in key) / 60


_WHOLE = "accuracy of the whole network trained alike, %"
ROWS = [
    Row("resnet56.half.drop", "points", _WHOLE, partial(drop, "taylor")),
    Row("resnet56.half.bn_scale.drop", "points", _WHOLE, partial(drop, "bn_scale")),
    Row("resnet56.half.random.drop", "points", _WHOLE, partial(drop, "random")),
    Row("resnet56.half.speedup", "x", "whole network, ms (1 thread, batch 1, same run)", partial(speedup, "taylor")),
    Row("resnet56.half.cpu_minutes", "min", "the whole network's", partial(minutes, "taylor")),
    Row("resnet56.tucker.drop", "points", _WHOLE, partial(drop, "tucker")),
    Row("resnet56.tucker.speedup", "x", "whole network, ms (1 thread, batch 1, same run)", partial(speedup, "tucker")),
    Row("resnet56.tucker.cpu_minutes", "min", "the whole network's", partial(minutes, "tucker")),
]
