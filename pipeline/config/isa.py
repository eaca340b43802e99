"""CPU features under Linux's names (the `Features` of /proc/cpuinfo; arch/arm64/kernel/cpuinfo.c): which there are, and
which contradict each other."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Literal, TypeAlias

TierName: TypeAlias = Literal["asimd", "dotprod", "i8mm"]
"""Classes of Arm cores, by the feature that decides which INT8 kernels run (see devices/arm64/tiers.py)."""

_NAMES = """
fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4
asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp sve2 sveaes svepmull svebitperm svesha3
svesm4 flagm2 frint svei8mm svef32mm svef64mm svebf16 i8mm bf16 dgh rng bti mte ecv afp rpres mte3 sme smei16i64
smef64f64 smei8i32 smef16f32 smeb16f32 smef32f32 smefa64 wfxt ebf16 sveebf16 cssc rprfm sve2p1 sme2 sme2p1 smei16i32
smebi32i32 smeb16b16 smef16f16 mops hbc sveb16b16 lrcpc3 lse128 fpmr lut faminmax f8cvt f8fma f8dp4 f8dp2 f8e4m3 f8e5m2
smelutv2 smef8f16 smef8f32 smesf8fma smesf8dp4 smesf8dp2 poe
"""
ARM_FEATURES = frozenset(_NAMES.split())
NEEDS = {
    **dict.fromkeys(("fphp", "asimdrdm", "asimddp", "bf16", "sve", "sme"), ("asimd",)),
    "asimdhp": ("asimd", "fphp"),
    "i8mm": ("asimd", "asimddp"),
    "sve2": ("sve",),
    "svei8mm": ("sve", "i8mm"),
    "svebf16": ("sve", "bf16"),
    "sme2": ("sme",),
}
"""Feature -> those that every CPU with it has (Arm Architecture Reference Manual, A2: FEAT_I8MM comes with Armv8.6,
FEAT_DotProd with Armv8.4; FEAT_FP16 has both scalars and vectors)."""
_X86 = ("sse", "ssse", "avx", "amx", "fma")


def is_arm(isa: Collection[str]) -> bool:
    """Whether a device with these features is an Arm CPU of 64 bits, all of which have asimd."""
    return any(name in NEEDS or name == "asimd" for name in isa)


def contradiction(isa: Collection[str]) -> str:
    """Why no CPU has these features, in words; empty if one may. Unknown names count on Arm, where all are known."""
    if not is_arm(isa):
        return ""
    if others := [name for name in isa if name.startswith(_X86)]:
        return f"{', '.join(others)} of x86 beside features of Arm"
    for name in isa:
        if name not in ARM_FEATURES:
            near = difflib.get_close_matches(name, ARM_FEATURES, n=1, cutoff=0.6)
            return f"{name!r} is none of Linux's names for Arm features{f': {near[0]!r} is' if near else ''}"
        if lacking := [needed for needed in NEEDS.get(name, ()) if needed not in isa]:
            return f"{name} without {', '.join(lacking)}, which every CPU with {name} has"
    return ""
