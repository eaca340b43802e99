"""The inputs of one inference as a file. Names of inputs are whatever a model's author chose: they stay data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Feed: TypeAlias = dict[str, NDArray[Any]]
"""Input name -> array."""
_NAMES = "names"


def write_feed(path: Path, feed: Feed) -> None:
    """Write an .npz file of numbered arrays, and of their names as JSON."""
    names = np.frombuffer(json.dumps(list(feed)).encode(), np.uint8)
    numbered = {str(number): array for number, array in enumerate(feed.values())}
    np.savez(path, **{_NAMES: names}, **numbered)  # type: ignore[arg-type]  # its `allow_pickle` is no array


def read_feed(path: Path) -> Feed:
    """What `write_feed` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        names = json.loads(arrays[_NAMES].tobytes())
        return {name: arrays[str(number)] for number, name in enumerate(names)}
