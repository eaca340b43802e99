"""Resident memory of this process, from Linux's /proc. Bytes are counted in MB of 10^6."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak() -> str:
    """Start a new peak at what is resident now (`5` written to clear_refs, man 5 proc_pid_clear_refs).

    Returns why it cannot be done here, or an empty string.
    """
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError as error:
        return f"the peak of resident memory cannot be reset: {_CLEAR}: {error.strerror}"
    return ""


def resident_mb() -> float:
    return _status("VmRSS")


def peak_mb() -> float:
    """The most that was resident since `reset_peak`."""
    return _status("VmHWM")


def _status(field: str) -> float:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise OSError(f"{_STATUS} has no {field}")
