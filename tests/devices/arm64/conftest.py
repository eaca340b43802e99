from __future__ import annotations

import sys

import pytest

from pipeline.devices.arm64 import environment
from pipeline.devices.arm64.runner import require


@pytest.fixture(scope="session")
def emulated() -> None:
    """Tests that ask for it run real arm64 programs."""
    if sys.platform != "linux":
        pytest.skip("user-mode emulation needs Linux")
    if environment.find() is None:
        pytest.skip("the arm64 environment is not set up here: `edge devices setup arm64`")
    require()
