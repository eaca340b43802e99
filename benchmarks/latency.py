"""How much faster one model is than another."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.row import Measured
from pipeline.checks.measure import measure_latency
from pipeline.checks.measurements import example_feed
from pipeline.checks.protocol import LatencyRequest
from pipeline.config.target import Target
from pipeline.core.artifact import Artifact
from pipeline.trace.graph import MODEL


def speedup(bundle: Artifact, other: Artifact, target: Target) -> Measured:
    """Latency of the model in `other` over the bundle's, medians of interleaved single inferences; beside it the
    other's own ms."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        np.savez(inputs, **example_feed(bundle.path, target.shape))
        request = LatencyRequest(
            model=bundle.path / MODEL,
            float_model=other.path / MODEL,
            inputs=inputs,
            runtime=target.runtime,
        )
        result = measure_latency(request)
    assert result.speedup is not None  # noqa: S101  # there is another model
    return Measured(result.speedup.value, float(np.median(result.float_samples_ms)))
