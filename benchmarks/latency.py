"""How much faster one model is than another."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.row import Measured
from pipeline.bundle.example_feed import example_feed
from pipeline.checks.timing import Turns, known_within, load_words, speed_figure, take_turns
from pipeline.config.target import Target
from pipeline.core.artifact import Artifact
from pipeline.devices.host_runner import HOST
from pipeline.devices.runner import subject_of
from pipeline.devices.worker import Subject
from pipeline.graph.files import MODEL, file_of
from pipeline.numerics.timing import FEW_PROCESSES
from pipeline.runtime.feeds import write_feed


def speedup(bundle: Artifact, other: Artifact, target: Target) -> Measured:
    """Latency of the model in `other` over the bundle's, medians of interleaved single inferences; beside it the
    other's own ms."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_feed(inputs, example_feed(bundle.path, target.shape))
        subjects = [subject_of(folder.path / file_of(MODEL), inputs, target.runtime) for folder in (other, bundle)]
        turns = in_one_run(subjects)
    figure = speed_figure(turns, 0, 1)
    return Measured(figure.value, float(np.median(turns.samples_ms(0))))


def in_one_run(subjects: Sequence[Subject], max_seconds: float = 240.0) -> Turns:
    """The times of models that took turns, until their ratios are known within half a per cent."""
    turns = take_turns(HOST, subjects, known_within(0.005, FEW_PROCESSES, 10), max_seconds)
    if turns.chosen.loaded:
        print(f"A loaded machine: {load_words(turns.blocks)}.", file=sys.stderr)
    return turns
