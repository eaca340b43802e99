from __future__ import annotations

import pytest

from pipeline.config.isa import ARM_FEATURES, contradiction
from pipeline.config.loading import load_target
from pipeline.core.errors import UsageError
from pipeline.devices.arm64.tiers import TIERS, tier_called, tier_of
from pipeline.devices.host_info import cpu_fields, isa_flags


@pytest.mark.parametrize(
    ("isa", "tier"),
    [
        (("asimd",), "asimd"),
        (("asimd", "fphp", "asimdhp"), "asimd"),
        (("asimd", "asimddp"), "dotprod"),
        (("asimd", "asimddp", "i8mm"), "i8mm"),
        (("asimd", "asimddp", "i8mm", "sve"), "i8mm"),
    ],
)
def test_the_tier_of_a_device_is_the_highest_that_it_belongs_to(isa: tuple[str, ...], tier: str) -> None:
    assert tier_of(isa).name == tier


def test_tiers_of_shipped_targets() -> None:
    names = ("phone", "phone-budget", "car", "robot")
    assert [tier_of(load_target(name).device.isa).name for name in names] == ["i8mm", "dotprod", "dotprod", "dotprod"]


def test_no_tier_for_other_cpus() -> None:
    with pytest.raises(UsageError, match=r"emulates Arm CPUs of 64 bits; the target's isa is avx2, fma\.") as caught:
        tier_of(("avx2", "fma"))
    assert caught.value.remedy == "Name asimd and what else the device has under [device] isa, or another runner."


def test_unknown_tier() -> None:
    with pytest.raises(UsageError, match=r"Unknown tier 'i8m'\.\nDid you mean 'i8mm'\?"):
        tier_called("i8m")


def test_each_tier_has_what_the_one_before_has() -> None:
    asimd, dotprod, i8mm = (set(tier.features) for tier in TIERS.values())
    assert asimd < dotprod < i8mm <= ARM_FEATURES
    assert not any(contradiction(tier.features) for tier in TIERS.values())
    assert all(set(tier.needs) <= set(tier.features) for tier in TIERS.values())


def test_cpuinfo_tells_the_features() -> None:
    told = cpu_fields(TIERS["dotprod"].files["proc/cpuinfo"])
    assert told["CPU part"] == "0xd0b"
    assert isa_flags(told) == ("asimd", "asimdhp", "asimddp")


def test_what_a_tier_and_a_device_do_not_share() -> None:
    tier = TIERS["i8mm"]
    assert tier.unlike(("asimd", "asimdhp", "asimddp", "i8mm", "sve", "sve2")) == (("sve", "sve2"), ("bf16",))
    assert tier.unlike(load_target("phone").device.isa) == ((), ())
