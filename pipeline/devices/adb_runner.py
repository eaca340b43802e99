"""The runner on an Android device that adb reaches."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from functools import partial

from pipeline.config.target import Target
from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.core.report_types import HostInfo
from pipeline.core.types import Json
from pipeline.devices.link import NEEDS_PYTHON, Link, board_python, python_command
from pipeline.devices.perf_test_runner import PROGRAM, PerfTestRunner
from pipeline.devices.remote_runner import RemoteRunner
from pipeline.devices.runner import Runner
from pipeline.devices.worker import Request

CLIENT = "EDGE_ADB"
"""The variable with another adb command."""
_SERIAL = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]{0,127}")
_TERMUX = (
    "An app's Python serves best over ssh (docs/devices.md: Termux). Otherwise name one that adb's shell may start "
    "with EDGE_BOARD_PYTHON, or give a native program with EDGE_PERF_TEST."
)


class AdbRunner:
    """What `adb` names; behind a colon stands the serial number of the device, which `adb devices` lists."""

    evidence = RemoteRunner.evidence

    @staticmethod
    def at(place: str, _target: Target) -> Runner:
        """The device of a serial number; without one, the only device there is. It runs a native program, if the user
        gives one (EDGE_PERF_TEST), else a Python of its own."""
        if place and not _SERIAL.fullmatch(place):
            raise UsageError(f"{place!r} is no serial number of a device.", "`adb devices` lists them.")
        if os.environ.get(PROGRAM):
            return PerfTestRunner([*client(place), "shell", "-T"], partial(broken, place), name_of(place))
        return RemoteRunner(partial(_connect, place))

    def run(self, request: Request, timeout_s: float) -> dict[str, Json]:
        """On the only device, by its Python."""
        return RemoteRunner(partial(_connect, "")).run(request, timeout_s)

    def info(self) -> HostInfo:
        """As `run`."""
        return RemoteRunner(partial(_connect, "")).info()


ADB = AdbRunner()


def _connect(serial: str) -> Link:
    return Link([*client(serial), "shell", "-T", python_command()], partial(broken, serial), name_of(serial))


def client(serial: str) -> list[str]:
    """The adb client's command line for a device. UsageError if it is not installed."""
    words = shlex.split(os.environ.get(CLIENT, "adb"))
    if not words or shutil.which(words[0]) is None:
        raise UsageError(
            f"There is no {words[0] if words else f'command in {CLIENT}'} here.",
            "Install adb (Debian: apt-get install adb), or name it with EDGE_ADB.",
        )
    return [*words, *(["-s", serial] if serial else [])]


def name_of(serial: str) -> str:
    """What messages call the device."""
    return f"the Android device {serial}" if serial else "the Android device"


_SAID = (
    (
        r"more than one device",
        "Several Android devices are connected.",
        "Name one: --runner adb:SERIAL; `adb devices` lists them.",
    ),
    (
        r"no devices/emulators found",
        "No Android device is connected.",
        "Plug it in, turn on USB debugging in its developer options, and see whether `adb devices` lists it.",
    ),
    (
        r"unauthorized|still authorizing",
        "{name} has not authorized this machine.",
        "Unlock it, and allow USB debugging in the dialog that it shows; then run the command again.",
    ),
    (r"device '.*' not found", "{name} is not connected.", "`adb devices` lists those that are."),
    (
        r"device offline",
        "{name} is offline.",
        "Plug it in again, or restart adb's server (`adb kill-server`).",
    ),
    (
        r"insufficient permissions|no permissions",
        "This user may not open {name}: {last}.",
        "Add the device to udev's rules, as https://developer.android.com/tools/device says.",
    ),
    (
        r"PTY args",
        "{name} is too old: its shell gives bytes back changed.",
        "Android 7 or newer is needed.",
    ),
    (r"old Python", "{name} has a Python that is too old: {last}.", NEEDS_PYTHON),
)


def broken(serial: str, code: int, said: str) -> EdgeError:
    """What the exit code of `adb shell`, its own or the device's, and its words mean."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1].rstrip(".") if lines else f"exit {code}"
    name = name_of(serial)
    for phrase, message, remedy in _SAID:
        if re.search(phrase, said):
            return UsageError(_capital(message.format(name=name, last=last)), remedy)
    if code in (126, 127):
        return UsageError(f"{_capital(name)} cannot start {board_python()[0]!r}: {last}.", _TERMUX)
    return StageError(
        f"The link to {name} broke, or there was none: {last}.",
        "What was finished before is kept: run the command again once `adb devices` lists it.",
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
