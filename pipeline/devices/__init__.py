"""Where bundles run: runners, the measuring program that they start (`worker.py`), and what it measures."""

from __future__ import annotations

from pipeline.config.target import Target
from pipeline.core.errors import UsageError
from pipeline.core.registry import Registry
from pipeline.devices.runner import Runner

RUNNERS: Registry[Runner] = Registry(
    "runner",
    {
        "host": "pipeline.devices.host_runner:HOST",
        "arm64": "pipeline.devices.arm64.runner:ARM64",
        "avx2": "pipeline.devices.avx2_runner:AVX2",
        "qnn": "pipeline.devices.qnn.runner:PLACES",
        "ssh": "pipeline.devices.ssh_runner:SSH",
        "adb": "pipeline.devices.adb_runner:ADB",
    },
    parts=("evidence", "run", "info"),
)


def runner_of(target: Target) -> Runner:
    """The runner that a target names, `NAME` or `NAME:PLACE`. UsageError for an unknown name, and for a place that the
    runner does not take; nothing is reached for yet."""
    name, colon, place = target.runner.partition(":")
    found = RUNNERS.get(name)
    at = getattr(found, "at", None)
    if at is not None:
        placed: Runner = at(place, target)
        return placed
    if colon:
        raise UsageError(f"The runner {name!r} takes no place, and {target.runner!r} names one.", f"Write {name!r}.")
    return found
