"""Inputs of the tiny ONNX files of the tests' common conftest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.runtime.feeds import write_feed


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """x = ones [4, 64], and an array that the model does not take."""
    path = tmp_path / "inputs.npz"
    write_feed(path, {"x": np.ones((4, 64), np.float32), "unused": np.zeros(3)})
    return path
