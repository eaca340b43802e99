"""What observers have seen so far, saved now and then so that a long calibration survives being killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from pipeline.core.store import fsync

_EVERY = 256
"""Samples. A state is at most some 32 KB a tensor, written in less time than a few samples take."""

_FILE = "observers.safetensors"
_DONE = "done"


class Checkpoint:
    """In `folder`, which belongs to one stage key: same graph, samples and scheme. None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._saved = 0

    def restore(self, observers: Sequence[Any]) -> int:
        """Bring fresh observers to what was saved; returns how many samples that is."""
        if self._folder is None or not (self._folder / _FILE).is_file():
            return 0
        saved = load_file(self._folder / _FILE)
        for number, observer in enumerate(observers):
            prefix = f"{number}."
            observer.restore({k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)})
        self._saved = int(saved[_DONE])
        return self._saved

    def save(self, done: int, observers: Sequence[Any]) -> None:
        """Every so many samples. Renamed into place, so that nobody finds half of it."""
        if self._folder is None or done // _EVERY == self._saved // _EVERY:
            return
        self._saved = done
        self._folder.mkdir(parents=True, exist_ok=True)
        arrays = {f"{n}.{name}": array for n, seen in enumerate(observers) for name, array in seen.state().items()}
        written = self._folder / f"{_FILE}.new"
        save_file({**arrays, _DONE: np.array(done)}, written)
        fsync(written)
        written.replace(self._folder / _FILE)
