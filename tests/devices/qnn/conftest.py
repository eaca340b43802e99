from __future__ import annotations

import platform
import sys

import pytest

from pipeline.devices.qnn.environment import QnnEnvironment, find, require


@pytest.fixture(scope="session")
def qnn() -> QnnEnvironment:
    """QNN's real libraries. Tests that ask for them compile and compute with them."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("QNN compiles ahead of time on x86-64 Linux alone")
    if find() is None:
        pytest.skip("QNN is not set up here: `edge devices setup qnn`")
    return require()
