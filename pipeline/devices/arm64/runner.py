"""The runner of an emulated Arm CPU: every request in a fresh process of the arm64 environment."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType

import onnxruntime

from pipeline.config.target import Target
from pipeline.core.errors import StageError
from pipeline.core.report_types import HostInfo
from pipeline.core.types import Evidence, Json
from pipeline.devices import worker
from pipeline.devices.arm64 import environment
from pipeline.devices.arm64.emulator import Emulator
from pipeline.devices.arm64.environment import Environment
from pipeline.devices.arm64.tiers import TIERS, Tier, tier_called, tier_of
from pipeline.devices.fetched import RECORD
from pipeline.devices.host_info import host_info, machine_info
from pipeline.devices.host_runner import HOST, cause
from pipeline.devices.runner import Runner, checked, encode

SLOWER = 20.0
"""How many times as long as on this machine a request may take under emulation. Time limits are generous there: an
INT8 inference of 128 tokens of MiniLM takes 12 ms here and 1.6 s emulated, a program's start 0.3 s and 2 s."""
LACKS = MappingProxyType(
    {
        "times": "under emulation a time is the emulator's, not the CPU's",
        "memory": "under emulation the process holds the emulator and its translated code too",
        "answers": "emulation is slow, so only a few samples run on each CPU tier",
    }
)
_NOT_SET_UP = "`edge devices setup arm64` fetches it, in under a minute and without root."


@dataclass(frozen=True)
class EmulatedRunner:
    """A core of one tier. `others`: further tiers on which answers are compared; `program`: what runs in place of the
    worker, in tests."""

    tier: Tier
    others: tuple[Tier, ...] = ()
    program: Path = field(default=Path(worker.__file__))
    lacks = LACKS
    instead = HOST

    @property
    def evidence(self) -> Evidence:
        """An Arm machine of the tier is no emulator."""
        return Evidence.HOST if self.tier == native_tier() else Evidence.EMULATED

    @property
    def tiers(self) -> dict[str, Runner]:
        """By name, this one first."""
        return {tier.name: EmulatedRunner(tier) for tier in (self.tier, *self.others)}

    def run(self, request: worker.Request, timeout_s: float) -> dict[str, Json]:
        """As `Runner.run`; it may take `SLOWER` times as long. StageError also if the environment is not set up, and
        for an instruction that the tier lacks, with the features of the first tier that has it. An Arm machine of the
        tier runs it itself."""
        if self.tier == native_tier():
            return HOST.run(request, timeout_s)
        return self.run_with(request, timeout_s)

    def run_with(self, request: worker.Request, timeout_s: float, options: tuple[str, ...] = ()) -> dict[str, Json]:
        """The same under emulation, with `options` of the emulator."""
        done = self._process(self.tier, request, timeout_s * SLOWER, options)
        if done.returncode == -signal.SIGILL:
            raise self._lacking(request, timeout_s * SLOWER)
        if done.returncode != 0:
            raise StageError(
                f"Measuring {request.mode} on the tier {self.tier.name} failed: {cause(done.returncode, done.stderr)}."
            )
        return checked(request, json.loads(done.stdout.splitlines()[-1]))

    def info(self) -> HostInfo:
        """The emulated core; memory is this machine's."""
        if self.tier == native_tier():
            return HOST.info()
        told = machine_info(self.run(worker.Facts(), 60.0))
        cpu = f"{self.tier.core}, emulated by QEMU {self.emulator.version}"
        return told.model_copy(update={"cpu": cpu, "cores": 1})

    @property
    def emulator(self) -> Emulator:
        """StageError if the environment is not set up."""
        return self._environment.emulator

    @cached_property
    def _environment(self) -> Environment:
        return require()

    def _process(
        self, tier: Tier, request: worker.Request, seconds: float, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        place = self._environment
        try:
            return subprocess.run(
                [*place.command(tier, *options), str(self.program)],
                input=encode(request),
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=place.variables(),
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StageError(
                f"Measuring {request.mode} on the emulated tier {tier.name} took longer than {seconds:g} s and was "
                "stopped.",
                "Use a shorter input shape or fewer samples: emulation is slow.",
            ) from error
        except OSError as error:
            raise StageError(f"The emulator cannot be started: {error.strerror}.", environment.REMEDY) from error

    def _lacking(self, request: worker.Request, seconds: float) -> StageError:
        """What the instruction needs: the features that the first tier has beyond this one on which the same runs."""
        what = f"The tier {self.tier.name} ({self.tier.core}) met an instruction that it does not have"
        names = list(TIERS)
        for name in names[names.index(self.tier.name) + 1 :]:
            if self._process(TIERS[name], request, seconds).returncode == 0:
                needs = [feature for feature in TIERS[name].needs if feature not in self.tier.features]
                return StageError(
                    f"{what}: this bundle needs {', '.join(needs)}, the tier lacks it; on the tier {name} it runs.",
                    "Leave out what needs it (a library of operators that was built for a newer CPU), or the tier.",
                )
        return StageError(
            f"{what}, and no other tier runs it either.", "Was a library of operators built for another CPU?"
        )


class Arm64:
    """The runner `arm64`: of a target's tiers, or of the one that is named behind a colon (`arm64:asimd`)."""

    evidence = Evidence.EMULATED
    lacks = LACKS
    instead = HOST

    def at(self, place: str, target: Target) -> Runner:
        """The runner of a tier, and of the others that the target names; this machine, where it is an Arm CPU of the
        only one. UsageError for an unknown tier, and for a target that is no Arm CPU."""
        own = tier_called(place) if place else tier_of(target.device.isa)
        named = () if place else target.cpu_tiers
        others = tuple(tier for tier in map(tier_called, named) if tier != own)
        return HOST if own == native_tier() and not others else EmulatedRunner(own, others)

    def run(self, request: worker.Request, timeout_s: float) -> dict[str, Json]:
        """On the lowest tier, which every Arm CPU of 64 bits has."""
        return EmulatedRunner(next(iter(TIERS.values()))).run(request, timeout_s)

    def info(self) -> HostInfo:
        return EmulatedRunner(next(iter(TIERS.values()))).info()


ARM64 = Arm64()


def native_tier() -> Tier | None:
    """The tier that this machine itself is of; None if it is no Arm CPU under Linux."""
    if sys.platform != "linux" or platform.machine() != "aarch64":
        return None
    return tier_of(host_info().isa)


def require() -> Environment:
    """The environment, verified. StageError if it is not set up, or for another release of ONNX Runtime."""
    if sys.platform != "linux":
        raise StageError(
            f"The runner arm64 needs Linux, where QEMU emulates single programs; this is {platform.system()}.",
            "Use it in a container of Debian or Ubuntu, or measure on a device with --runner ssh:USER@HOST.",
        )
    found = environment.find()
    if found is None:
        raise StageError("The arm64 environment is not set up on this machine.", _NOT_SET_UP)
    here = onnxruntime.__version__
    if found.record.onnxruntime != here:
        raise StageError(
            f"The arm64 environment has ONNX Runtime {found.record.onnxruntime}, and here it is {here}.",
            environment.REMEDY,
        )
    _verify_once(found, (found.folder / RECORD).stat().st_mtime_ns)
    return found


@lru_cache
def _verify_once(found: Environment, _made: int) -> None:
    """In a process, since it reads every file; an environment that is set up anew has another time."""
    found.verify()
