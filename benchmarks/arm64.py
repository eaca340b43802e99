"""The default model's phone bundle on emulated Arm CPUs (needs `edge devices setup arm64`)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks import minilm
from benchmarks.data import ag_news
from benchmarks.row import Measured, Row
from pipeline.bundle.example_feed import example_feed
from pipeline.checks.answers import ANSWERS
from pipeline.checks.float_reference import FloatReference
from pipeline.checks.tiers import check_tiers
from pipeline.config.loading import load_target
from pipeline.core.errors import StageError
from pipeline.data.encode import load_tokenizer
from pipeline.data.samples import open_samples, write_samples
from pipeline.devices.arm64.counting import count
from pipeline.devices.arm64.runner import EmulatedRunner
from pipeline.devices.arm64.tiers import TIERS
from pipeline.devices.runner import subject_of
from pipeline.devices.runner_session import RunnerSession
from pipeline.devices.worker import Subject, available_cores
from pipeline.graph.files import graphs_in
from pipeline.metrics.fidelity import top_k_overlap
from pipeline.runtime.feeds import write_feed
from pipeline.runtime.infer import judged_outputs
from pipeline.runtime.session import parallel_session

Array = NDArray[np.float32]
CHECK_SECONDS = 90.0
_RECIPE, _TARGET = "w8a8", "phone"


def check_seconds() -> Measured:
    """Seconds of the check on the phone's three tiers: golden inputs, and 32 sentences on each; beside the limit."""
    made, target = minilm.artifacts(_RECIPE, _TARGET), load_target(_TARGET)
    runners = EmulatedRunner(TIERS["i8mm"], (TIERS["asimd"], TIERS["dotprod"])).tiers
    begin = time.monotonic()
    model, reference = graphs_in(made["write"].path), FloatReference.of_export(made)
    found = check_tiers(made["bundle"].path, model, target, dict(runners), reference, made[ANSWERS].path)
    taken = time.monotonic() - begin
    if failures := [tier.failure for tier in found if tier.failure]:
        raise StageError(failures[0])
    return Measured(taken, CHECK_SECONDS)


def top10_difference() -> Measured:
    """By how much the neighbours kept of 600 AG News items differ between this machine and an i8mm or dot-product
    core, the larger of both; beside the share kept here."""
    here = _kept(_embeddings(parallel_session(graphs_in(_written()), load_target(_TARGET).runtime)))
    with ThreadPoolExecutor(available_cores()) as pool:
        there = [_kept(embeddings) for embeddings in pool.map(_emulated, ("dotprod", "i8mm"))]
    return Measured(max(abs(here - each) for each in there), here)


def count_spread() -> Measured:
    """Instructions between the least and the most of four counts of one inference on each tier, two of them while every
    core is busy with something else; beside the count on an i8mm core."""
    target = load_target(_TARGET)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_feed(inputs, example_feed(minilm.artifacts(_RECIPE, _TARGET)["bundle"].path, target.shape))
        subject = subject_of(graphs_in(_written()), inputs, target.runtime)
        quiet = [_totals(subject) for _ in range(2)]
        with _busy():
            loaded = [_totals(subject) for _ in range(2)]
    spread = max(max(each) - min(each) for each in zip(*quiet, *loaded, strict=True))
    return Measured(spread, quiet[0][-1])


def _totals(subject: Subject) -> list[int]:
    return [count(EmulatedRunner(tier), subject).total for tier in TIERS.values()]


@contextmanager
def _busy() -> Iterator[None]:
    """Two processes on every core that do nothing but take time."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * available_cores())]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _kept(embeddings: Array) -> float:
    return top_k_overlap(_float_embeddings(), embeddings, k=10)


@cache
def _float_embeddings() -> Array:
    return _embeddings(parallel_session(graphs_in(minilm.artifacts(_RECIPE, _TARGET)["trace.float"].path)))


def _emulated(tier: str) -> Array:
    subject = subject_of(graphs_in(_written()), Path(), load_target(_TARGET).runtime)
    return _embeddings(RunnerSession(EmulatedRunner(TIERS[tier]), subject))


def _written() -> Path:
    return minilm.artifacts(_RECIPE, _TARGET)["write"].path


def _embeddings(session: ort.InferenceSession) -> Array:
    """Of 600 AG News items, one at a time."""
    tokenizer = load_tokenizer(minilm.artifacts(_RECIPE, _TARGET)["bundle"].path)
    rows = (tokenizer(text, truncation=True, max_length=128) for text in ag_news())
    with tempfile.TemporaryDirectory() as scratch:
        write_samples(Path(scratch), ({n: np.array([v], np.int64) for n, v in row.items()} for row in rows))
        return judged_outputs(session, open_samples(Path(scratch)))


ROWS = [
    Row("arm64.check_s", "s", "limit", check_seconds),
    Row("arm64.count_spread", "instructions", "instructions of one inference, i8mm", count_spread),
    Row("arm64.top10_difference", "share", "share kept on this machine", top10_difference),
]
