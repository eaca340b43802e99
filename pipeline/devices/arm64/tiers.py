"""CPU tiers: the classes of Arm cores for which ONNX Runtime has kernels of their own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pipeline.config.isa import TierName, is_arm
from pipeline.core.errors import UsageError, suggest
from pipeline.devices.host_info import ISA

_CPU = "sys/devices/system/cpu"
_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_DOTPROD = f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
_I8MM = f"{_DOTPROD} jscvt fcma asimdfhm ilrcpc flagm dcpodp flagm2 frint i8mm bf16"


@dataclass(frozen=True)
class Tier:
    """One class of cores.

    Attributes:
        name: The feature that decides which INT8 kernels run.
        core: A core of the class.
        cpu: What QEMU's `-cpu` calls it.
        part: Its number in /proc/cpuinfo, by which libraries tell cores apart.
        features: What it has, by Linux's names.
        needs: Features with which a device belongs to it.
    """

    name: TierName
    core: str
    cpu: str
    part: str
    features: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def files(self) -> dict[str, str]:
        """What Linux tells of a machine with one such core, by path: QEMU 7.2 would show the host's, by which libraries
        choose kernels (or crash, where cores of the one are missing in the other)."""
        cpuinfo = (
            "processor\t: 0\nBogoMIPS\t: 100.00\n"
            f"Features\t: {' '.join(self.features)}\n"
            "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\n"
            f"CPU part\t: {self.part}\nCPU revision\t: 0\n\n"
        )
        cpus = {f"{_CPU}/{name}": "0\n" for name in ("possible", "present", "online")}
        cache = {"level": "2\n", "size": "512K\n", "shared_cpu_list": "0\n"}
        return {
            "proc/cpuinfo": cpuinfo,
            **cpus,
            **{f"{_CPU}/cpu0/cache/index2/{name}": of for name, of in cache.items()},
        }

    def unlike(self, isa: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Features that decide on kernels: those that a device with `isa` has and the tier lacks, and the reverse."""
        deciding = [name for name in ISA if name in isa or name in self.features]
        lacking = tuple(name for name in deciding if name not in self.features)
        return lacking, tuple(name for name in deciding if name not in isa)


TIERS: dict[str, Tier] = {
    tier.name: tier
    for tier in (
        Tier("asimd", "Cortex-A53", "cortex-a53", "0xd03", tuple(_BASE.split()), ("asimd",)),
        Tier("dotprod", "Cortex-A76", "cortex-a76", "0xd0b", tuple(_DOTPROD.split()), ("asimd", "asimddp")),
        # QEMU has no core with i8mm and without SVE; with SME on, QEMU 7.2 gives wrong results
        Tier("i8mm", "Cortex-A710 without SVE", "max,sve=off,sme=off", "0xd47", tuple(_I8MM.split()), ("i8mm",)),
    )
}
"""By name, each with what the one before has."""


def tier_of(isa: Collection[str]) -> Tier:
    """The tier of a device with these features; UsageError if it is no Arm CPU of 64 bits."""
    fitting = [tier for tier in TIERS.values() if set(tier.needs) <= set(isa)]
    if not is_arm(isa) or not fitting:
        raise UsageError(
            f"The runner 'arm64' emulates Arm CPUs of 64 bits; the target's isa is {', '.join(isa) or 'empty'}.",
            "Name asimd and what else the device has under [device] isa, or another runner.",
        )
    return fitting[-1]


def tier_called(name: str) -> Tier:
    """UsageError for an unknown name."""
    if name not in TIERS:
        raise UsageError(f"Unknown tier {name!r}.", suggest(name, TIERS))
    return TIERS[name]
