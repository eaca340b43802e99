from __future__ import annotations

import pytest

from pipeline.config.isa import contradiction, is_arm
from pipeline.config.loading import available, load_target


@pytest.mark.parametrize(
    ("isa", "why"),
    [
        (("asimd", "fphp", "asimdhp", "asimddp", "i8mm", "bf16"), ""),
        (("asimd", "i8mm"), "i8mm without asimddp, which every CPU with i8mm has"),
        (("asimddp",), "asimddp without asimd, which every CPU with asimddp has"),
        (("asimd", "asimdhp"), "asimdhp without fphp, which every CPU with asimdhp has"),
        (("asimd", "asimddp", "i8mm", "svei8mm"), "svei8mm without sve, which every CPU with svei8mm has"),
        (("asimd", "i8m"), "'i8m' is none of Linux's names for Arm features: 'i8mm' is"),
        (("asimd", "turbo"), "'turbo' is none of Linux's names for Arm features"),
        (("asimd", "avx2", "fma"), "avx2, fma of x86 beside features of Arm"),
        (("avx2", "avx512_vnni", "never_heard_of"), ""),  # x86 has too many names to know them all
        ((), ""),
    ],
)
def test_contradictions(isa: tuple[str, ...], why: str) -> None:
    assert contradiction(isa) == why


def test_what_is_an_arm_cpu() -> None:
    assert is_arm(("asimd",)) and is_arm(("i8mm",))
    assert not is_arm(("avx2", "sse4_1")) and not is_arm(())


def test_shipped_targets_are_arm_cpus() -> None:
    assert all(is_arm(load_target(name).device.isa) for name in available("targets"))
