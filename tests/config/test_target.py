"""The targets that ship, and what the schema refuses."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.loading import available, load_target, shipped
from pipeline.config.target import Target
from pipeline.core.budgets import BUDGETS
from pipeline.core.errors import UsageError
from pipeline.core.types import Evidence
from pipeline.core.untrusted import read_toml

CPU_NAMES = ("car", "phone", "phone-budget", "robot")
NPU_NAMES = ("car-npu", "phone-npu")
NAMES = tuple(sorted(CPU_NAMES + NPU_NAMES))
NOT_REQUIRED = {"latency_p95_ms", "max_power_w"}
ALWAYS_REQUIRED = {
    "peak_memory_mb",
    "bundle_mb",
    "max_accuracy_drop",
    "min_top10_overlap",
    "min_weight_coverage",
    "min_mac_coverage",
    "min_speedup",
}
README = (shipped("targets") / "README.md").read_text(encoding="utf-8")
PHONE = {"name": "phone", **read_toml(shipped("targets") / "phone.toml")}


def changed(place: str, value: object) -> dict[str, Any]:
    """The phone with the value at a dotted place replaced; None removes it."""
    data = copy.deepcopy(PHONE)
    *parents, last = place.split(".")
    table = data
    for key in parents:
        table = table[key]
    if value is None:
        del table[last]
    else:
        table[last] = value
    return data


def refused(data: dict[str, Any]) -> str:
    """The message with which `data` is refused."""
    with pytest.raises(UsageError) as caught:
        Target.from_data(data, "phone.toml")
    return caught.value.message


def sources(target: Target) -> list[str]:
    budgets = [budget.source for budget in target.budgets.values()]
    npu = target.npu.sources.values() if target.npu else ()
    return [*npu, *target.device.sources.values(), *target.runtime.sources.values(), *budgets]


def test_exactly_these_targets_ship() -> None:
    assert tuple(sorted(path.stem for path in shipped("targets").glob("*.toml"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_shipped_target_has_the_common_runtime_and_shape(name: str) -> None:
    target = load_target(name)
    assert (target.name, target.kind) == (name, name.split("-", maxsplit=1)[0])
    assert target.runtime.providers == ("CPUExecutionProvider",)
    assert target.runtime.threads == 1
    assert target.runtime.disabled_optimizers == ("SkipLayerNormFusion", "QDQPropagationTransformer")
    assert {"threads", "disabled_optimizers"} <= set(target.runtime.sources)
    assert (target.shape.batch_size, target.shape.sequence_length) == (1, 128)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("phone", "w8a8"),
        ("phone-budget", "w8a8"),
        ("car", "w8a8"),
        ("robot", "w4a8-static"),
        ("phone-npu", "w8a16-npu"),
        ("car-npu", "w8a8-npu"),
    ],
)
def test_default_recipe(name: str, recipe: str) -> None:
    assert load_target(name).recipe == recipe


@pytest.mark.parametrize("name", CPU_NAMES)
def test_what_the_host_can_decide_is_required_and_the_rest_is_not(name: str) -> None:
    budgets = load_target(name).budgets
    required = {kind for kind, budget in budgets.items() if budget.required}
    assert required == ALWAYS_REQUIRED
    assert set(budgets) - required <= NOT_REQUIRED
    for kind, budget in budgets.items():
        host_counts = Evidence.HOST in budget.evidence
        assert host_counts == (kind in ALWAYS_REQUIRED), kind


@pytest.mark.parametrize("name", NPU_NAMES)
def test_an_npu_is_judged_by_what_it_computes(name: str) -> None:
    """A host tells nothing of its latency, and no estimate is defended."""
    target = load_target(name)
    assert {kind for kind, budget in target.budgets.items() if not budget.required} == {"latency_p95_ms"}
    assert target.budgets["latency_p95_ms"].evidence == (Evidence.DEVICE,)
    assert {"min_golden_match", "max_tier_drop", "min_npu_coverage", "max_npu_parts"} < set(target.budgets)
    assert target.npu is not None
    assert f"| {name} | {', '.join(target.npu.socs)} | {target.recipe} |" in README


@pytest.mark.parametrize("name", NAMES)
def test_clusters_run_from_the_fastest_core_to_the_slowest(name: str) -> None:
    device = load_target(name).device
    clocks = [cluster.clock_mhz for cluster in device.clusters]
    assert clocks == sorted(clocks, reverse=True)
    assert sum(cluster.count for cluster in device.clusters) == 8


@pytest.mark.parametrize("name", NAMES)
def test_sources_name_no_place_on_a_machine(name: str) -> None:
    for source in sources(load_target(name)):
        assert not re.search(r"(?<!\w)/(home|root|tmp|work|mnt|Users)\b|\.csv\b", source), source


@pytest.mark.parametrize("name", NAMES)
def test_readme_row_agrees_with_the_file(name: str) -> None:
    device = load_target(name).device
    cores = ", ".join(f"{part.count}x {part.core} {part.clock_mhz}" for part in device.clusters)
    extra = ", ".join(device.isa[4:]) or "-"
    figures = f"{device.memory_mb} | {device.bandwidth_gb_s:g} | {load_target(name).recipe}"
    assert f"| {name} | {device.soc} | {cores} | {extra} | {figures} |" in README
    assert device.isa[:4] == ("asimd", "fphp", "asimdhp", "asimddp")


def test_readme_limits_agree_with_the_files() -> None:
    targets = [load_target(name) for name in ("phone", "phone-budget", "car", "robot")]
    for kind in sorted(ALWAYS_REQUIRED | NOT_REQUIRED):
        found = [target.budgets.get(kind) for target in targets]
        limits = " | ".join(f"{budget.limit:g}" if budget else "-" for budget in found)
        required = "yes" if kind in ALWAYS_REQUIRED else "no"
        assert f"| `{kind}` {BUDGETS.get(kind).direction} | {limits} | {required} |" in README


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        ("titel", "x", "titel: unknown key. Did you mean 'title'?"),
        ("device.isas", [], "device.isas: unknown key. Did you mean 'isa'?"),
        ("runtime.thread", 1, "runtime.thread: unknown key. Did you mean 'threads'?"),
        ("budgets.bundle_mb.limits", 1, "budgets.bundle_mb.limits: unknown key. Did you mean 'limit'?"),
        (
            "shape.zzz",
            1,
            "shape.zzz: unknown key. Allowed: batch_size, context_length, sequence_length.",
        ),
        (
            "budgets.bundle_mb.limit",
            -1,
            "budgets.bundle_mb.limit: Input should be greater than or equal to 0 (given: -1)",
        ),
        ("measure_seconds", 0, "measure_seconds: Input should be greater than 0 (given: 0)"),
        ("budgets.bundle_mb.limit", "30", "budgets.bundle_mb.limit: a limit must be a number (given: '30')"),
        ("budgets.bundle_mb.limit", True, "budgets.bundle_mb.limit: a limit must be a number (given: True)"),
        ("budgets.bundle_mb.source", None, "budgets.bundle_mb.source: is missing"),
        (
            "budgets.bundle_mb.source",
            "guess",
            "budgets.bundle_mb.source: String should have at least 8 characters (given: 'guess')",
        ),
        (
            "device.memory_mb",
            0,
            "device.memory_mb: Input should be greater than 0 (given: 0)",
        ),
        ("device.sources.isa", None, "device: no source for isa: add it to [device.sources]"),
    ],
)
def test_one_mistake_is_explained(place: str, value: object, line: str) -> None:
    assert refused(changed(place, value)) == f"phone.toml has 1 mistake:\n  - {line}"


def test_all_missing_sources_are_named_together() -> None:
    data = changed("device.sources", {"soc": "datasheet", "clusters": "datasheet"})
    missing = "bandwidth_gb_s, isa, memory_mb"
    assert refused(data).endswith(f"device: no source for {missing}: add it to [device.sources]")


def test_unknown_budget_is_named_with_the_nearest_known_one() -> None:
    message = refused(changed("budgets.bundle_mbs", PHONE["budgets"]["bundle_mb"]))
    assert message == ("phone.toml has 1 mistake:\n  - budgets: unknown budget 'bundle_mbs'. Did you mean 'bundle_mb'?")


def test_a_target_without_budgets_decides_nothing_and_is_refused() -> None:
    assert "budgets: " in refused(changed("budgets", {}))


def test_a_budget_needs_evidence_that_can_decide_it() -> None:
    assert "budgets.bundle_mb.evidence" in refused(changed("budgets.bundle_mb.evidence", []))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_limit_is_accepted_exactly_when_it_is_not_negative(limit: float) -> None:
    data = changed("budgets.bundle_mb.limit", limit)
    if limit >= 0:
        assert Target.from_data(data, "phone.toml").budgets["bundle_mb"].limit == limit
    else:
        assert "budgets.bundle_mb.limit" in refused(data)


@pytest.mark.parametrize("limit", [float("nan"), float("inf")])
def test_a_limit_that_can_never_decide_is_refused(limit: float) -> None:
    assert "budgets.bundle_mb.limit: Input should be a finite number" in refused(
        changed("budgets.bundle_mb.limit", limit)
    )


def test_shipped_targets_are_found_by_name() -> None:
    assert set(NAMES) <= set(available("targets"))


def test_what_a_target_asks_of_one_task_is_in_place_of_the_rest() -> None:
    phone = load_target("phone")
    own = phone.for_task("text-generation")
    assert (phone.recipe, own.recipe) == ("w8a8", "w4a8-language")
    assert set(own.budgets).isdisjoint({"min_top10_overlap", "max_accuracy_drop"})
    assert own.shape.context_length == 2048
    assert (own.device, own.runtime) == (phone.device, phone.runtime)
    assert phone.for_task("text-classification") is phone


def test_a_task_without_budgets_or_with_unknown_ones_is_refused() -> None:
    data = load_target("phone").model_dump(mode="json")
    budget = {"limit": 1, "required": True, "evidence": ["host"], "source": "assumption: a test"}
    with pytest.raises(UsageError, match=r"tasks\.text-generation\.budgets"):
        Target.from_data({**data, "tasks": {"text-generation": {"budgets": {}}}}, "phone.toml")
    with pytest.raises(UsageError, match="max_perplexity_increase"):
        odd = {"text-generation": {"budgets": {"max_perplexity": budget}}}
        Target.from_data({**data, "tasks": odd}, "phone.toml")
