"""`edge devices`: what the commands show of runners and of the emulated arm64 environment."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.checks.calibrate import WORST, median_error
from pipeline.checks.calibrate import calibrate as measure_costs
from pipeline.cli.terminal import Terminal, output_console
from pipeline.config.edit_target import local_target_file, write_calibration
from pipeline.config.loading import load_target
from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.core.report_types import HostInfo
from pipeline.devices import RUNNERS, avx2_runner, runner_of
from pipeline.devices.arm64 import environment, packages
from pipeline.devices.arm64.emulator import on_path, too_old
from pipeline.devices.arm64.runner import EmulatedRunner, require
from pipeline.devices.arm64.setup import set_up as set_up_environment
from pipeline.devices.arm64.tiers import TIERS, tier_of
from pipeline.devices.fetched import RECORD, cache_folder
from pipeline.devices.fetched import remove as remove_environment
from pipeline.devices.host_info import host_info
from pipeline.devices.qnn import environment as qnn
from pipeline.devices.qnn import setup as qnn_setup

_SETUP = "edge devices setup arm64"
_CLIENTS = {"ssh": ("ssh", "ssh:user@board[:port]"), "adb": ("adb", "adb, or adb:SERIAL")}
"""The program that a runner needs here, and how a place of it is named."""


def show_runners(console: Console) -> None:
    """A row per runner; of an installed one that cannot be used, why."""
    table = Table("runner", "evidence", "state", box=None, pad_edge=False, padding=(0, 2))
    for name, runner in RUNNERS.survey():
        if isinstance(runner, UsageError):
            table.add_row(name, "", f"cannot be used: {runner.message}")
        else:
            table.add_row(name, str(runner.evidence), _state(name))
    console.print(table)


def _state(name: str) -> str:
    if name == "host":
        return host_info().cpu
    if name in _CLIENTS:
        return _client_state(*_CLIENTS[name])
    states = {"arm64": _arm64_state, avx2_runner.NAME: avx2_runner.state, qnn.NAME: _qnn_state}
    return states[name]() if name in states else ""


def _client_state(client: str, place: str) -> str:
    found = shutil.which(client)
    return f"name a place: {place}" if found else f"{client} is not installed"


def _arm64_state() -> str:
    try:
        found = environment.find()
    except EdgeError as error:
        return f"{error.message} {error.remedy}"
    if found is not None:
        record, own = found.record, "" if found.record.emulator else "this machine's "
        return (
            f"set up: ONNX Runtime {record.onnxruntime}, numpy {record.numpy}, Python {record.python}, {own}QEMU "
            f"{found.emulator.version}, {found.megabytes:.0f} MB in {found.folder}"
        )
    if missing := packages.missing_tools():
        return f"cannot be set up, since this is missing: {'; '.join(missing)}"
    installed = on_path()
    emulator = f"QEMU {installed.version} is here" if installed else f"QEMU is fetched too{_because(too_old())}"
    return f"not set up: `{_SETUP}` ({emulator})"


def _qnn_state() -> str:
    try:
        qnn.require_platform()
        found = qnn.find()
    except EdgeError as error:
        return f"{error.message} {error.remedy}"
    if found is None:
        return f"not set up: `edge devices setup {qnn.NAME}`"
    record = found.record
    return (
        f"set up: onnxruntime-qnn {record.wheel} for ONNX Runtime {record.onnxruntime}, {found.megabytes:.0f} MB in "
        f"{found.folder}; name a SoC: qnn:SM8750"
    )


def _because(why: str) -> str:
    return f": {why}" if why else ""


def probe(runner: str, target: str, console: Console) -> None:
    """Print the machine of a runner; of arm64 every tier, unless one is named."""
    aimed = load_target(target)
    runner_of(aimed.model_copy(update={"runner": runner}))
    if runner != "arm64":
        _show_machine(runner_of(aimed.model_copy(update={"runner": runner})).info(), console)
        return
    record = require().record
    console.print(
        f"ONNX Runtime {record.onnxruntime}, numpy {record.numpy}, Python {record.python}; every file is whole."
    )
    own = tier_of(aimed.device.isa)
    for tier in TIERS.values():
        console.print()
        console.print(f"tier {tier.name}{f' (of the target {aimed.name})' if tier == own else ''}")
        _show_machine(EmulatedRunner(tier).info(), console)
    lacking, beyond = own.unlike(aimed.device.isa)
    if lacking or beyond:
        console.print()
        said = [f"lacks {', '.join(lacking)}"] * bool(lacking) + [f"has {', '.join(beyond)} beyond it"] * bool(beyond)
        console.print(f"Beside the target's isa, its tier {own.name} {' and '.join(said)}.", soft_wrap=True)


def _show_machine(machine: HostInfo, console: Console) -> None:
    rows = {
        "cpu": machine.cpu,
        "features": ", ".join(machine.isa) or machine.reason,
        "cores": str(machine.cores),
        "memory": f"{machine.memory_mb} MB",
        "system": machine.system,
        "runtime": f"ONNX Runtime {machine.onnxruntime}",
    }
    for name, value in rows.items():
        console.print(f"  {name:<9} {value}", soft_wrap=True)


def set_up(runner: str, sources: Path | None) -> None:
    """Make the environment of a runner unless it is there, whole and of the release that runs here; say what it is."""
    if _needs_setup(runner) == qnn.NAME:
        _set_up_qnn(sources)
        return
    if sources is None and _is_whole():
        output_console().print(f"arm64 is already {_arm64_state()}.", soft_wrap=True)
        return
    begun = time.monotonic()
    terminal = Terminal(verbose=False)
    with terminal.running():
        made, notes = set_up_environment(sources, terminal.step)
    console = output_console()
    for note in notes:
        console.print(f"Note: {note}", soft_wrap=True)
    console.print(f"arm64 is {_arm64_state()} ({time.monotonic() - begun:.0f} s).", soft_wrap=True)
    listed = f"{len(made.record.packages)} packages; their sha256 and that of every file: "
    console.print(f"{listed}{made.folder / RECORD}", soft_wrap=True)


def _set_up_qnn(sources: Path | None) -> None:
    if sources is not None:
        raise UsageError("--sources is a list of apt sources, and qnn is a wheel.", "Leave it out.")
    if _is_whole(qnn.require):
        output_console().print(f"qnn is already {_qnn_state()}.", soft_wrap=True)
        return
    terminal = Terminal(verbose=False)
    with terminal.running():
        made = qnn_setup.set_up(terminal.step)
    console = output_console()
    console.print(f"qnn is {_qnn_state()}.", soft_wrap=True)
    console.print(
        f"Its libraries are Qualcomm's (their licence: {made.folder / 'site' / qnn.FOLDER}); their sha256: "
        f"{made.folder / RECORD}",
        soft_wrap=True,
    )


def _is_whole(require: Callable[[], object] = require) -> bool:
    try:
        require()
    except EdgeError:
        return False
    return True


def remove(runner: str, console: Console) -> None:
    """Remove the environment of a runner."""
    name = _needs_setup(runner)
    folder = cache_folder() / name
    nothing = f"There was nothing to remove: {folder} does not exist."
    said = f"Removed {folder}." if remove_environment(name) else nothing
    console.print(said, soft_wrap=True)


def _needs_setup(runner: str) -> str:
    """The runner's name; UsageError for one that fetches nothing."""
    RUNNERS.require(runner)
    if runner not in (environment.NAME, qnn.NAME):
        raise UsageError(
            f"The runner {runner!r} needs no set-up.",
            "Only arm64 (an emulator) and qnn (a compiler) fetch something.",
        )
    return runner


def calibrate(runner: str, target: str, threads: int | None, write: bool, console: Console) -> None:
    """Measure, print costs and how well they fit, and with `write` change the target's file in the working folder."""
    profile = load_target(target)
    file = local_target_file(target) if write else None
    aimed = profile.changed(runtime={"threads": threads}).model_copy(update={"runner": runner})
    terminal = Terminal(verbose=False)
    with terminal.running():
        found, probed = measure_costs(runner_of(aimed), aimed, terminal.begin("calibrate"))
    table = Table("network", "ms", "fitted", box=None, pad_edge=False, padding=(0, 2))
    for each in probed:
        table.add_row(each.name, f"{each.ms:.3g}", f"{each.fitted_ms:.3g}")
    console.print(table)
    costs = ", ".join(f"{kind} {value:g}" for kind, value in found.costs.model_dump().items())
    console.print(
        f"{costs} (ps; calls: us), with {found.threads} threads; {found.source}", soft_wrap=True, markup=False
    )
    error = median_error(probed)
    console.print(f"Each network predicted from the others: median error {error:.0%}.")
    if error > WORST:
        raise StageError(
            f"The times do not fit together (more than {WORST:.0%}): other programs ran beside, or the clock changed.",
            "Close other programs, let the device cool down, and calibrate again.",
        )
    if file is None:
        console.print("--write puts this into the target's file here, for `edge check` and `edge analyze` with it.")
    else:
        write_calibration(file, found)
        console.print(f"{file} has it now.", soft_wrap=True, markup=False)
