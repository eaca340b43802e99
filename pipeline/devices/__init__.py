"""Where bundles run: runners, the measuring program that they start (`worker.py`), and what it measures."""

from __future__ import annotations

from pipeline.core.registry import Registry
from pipeline.devices.runner import Runner

RUNNERS: Registry[Runner] = Registry(
    "runner", {"host": "pipeline.devices.host_runner:HOST"}, parts=("evidence", "run", "info")
)
