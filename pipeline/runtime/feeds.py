"""The inputs of one inference as a file. Names of inputs are whatever a model's author chose: they stay data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.devices.worker import Feed


def write_feed(path: Path, feed: Feed) -> None:
    """Write an .npz file of numbered arrays, and of their names as JSON: what the worker's `read_feed` reads."""
    names = np.frombuffer(json.dumps(list(feed)).encode(), np.uint8)
    numbered = {str(number): array for number, array in enumerate(feed.values())}
    np.savez(path, names=names, **numbered)  # type: ignore[arg-type]  # its `allow_pickle` is no array
