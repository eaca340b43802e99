"""Budgets on what a bundle answers on other CPUs, those that its target names or a board's: they apply wherever those
were tried."""

from __future__ import annotations

from pipeline.checks.budgets.accuracy import NAME as DROP_NAME
from pipeline.checks.budgets.metric import Absent, Explained, Metric, Outcome
from pipeline.checks.measurements import Measurements
from pipeline.checks.npu import untried
from pipeline.config.target import Budget
from pipeline.core.report_types import TierCheck
from pipeline.core.types import Evidence, Figure

GOLDEN_NAME, TIER_DROP_NAME = "min_golden_match", "max_tier_drop"
NOT_TRIED = "no CPU tier was tried: --runner arm64 emulates those of the target"
_ANY = (Evidence.HOST, Evidence.EMULATED, Evidence.DEVICE)


def implied(found: Measurements) -> dict[str, Budget]:
    """The budgets that hold where tiers were tried and the target sets none: every golden output is given, and no tier
    loses more than the target allows."""
    if not found.records.tiers:
        return {}
    golden = Budget(
        limit=1.0,
        required=True,
        evidence=_ANY,
        source="the golden outputs are what the bundle promises, within its own tolerance",
    )
    drop = found.case.target.budgets.get(DROP_NAME)
    if drop is None or not any(tier.accuracy for tier in found.records.tiers):
        return {GOLDEN_NAME: golden}
    return {GOLDEN_NAME: golden, TIER_DROP_NAME: drop.model_copy(update={"evidence": _ANY})}


def _match(found: Measurements) -> Outcome:
    if why := _untried(found):
        return Absent(why)
    tiers = [tier for tier in found.records.tiers if tier.golden or tier.failure]
    if not tiers:
        return Absent(NOT_TRIED if not found.records.tiers else "the bundle has no golden inputs")
    worst = min(tiers, key=_share)
    note = f"{len(tiers)} tiers; worst: {worst.tier}"
    return Figure(value=_share(worst), unit="share", evidence=worst.evidence, note=note)


def _untried(found: Measurements) -> str:
    """Why the bundle did not run on each NPU of its target; empty if it did."""
    case = found.case
    return untried(case.bundle, case.target, [tier.tier for tier in found.records.tiers]) if case.target.npu else ""


def _share(tier: TierCheck) -> float:
    return tier.matched / tier.golden if tier.golden and not tier.failure else 0.0


def _explain_match(_: float, found: Measurements) -> Explained:
    return tuple(_words(tier) for tier in found.records.tiers if _share(tier) < 1), (
        "The file answers otherwise on these CPUs than where it was made. Schemes whose sums cannot saturate and whose "
        "products are whole (w8a8, w8a8-dynamic with reduced ranges) agree on all."
    )


def _words(tier: TierCheck) -> str:
    if tier.failure:
        return f"{tier.tier}: {tier.failure}"
    by = "not finite" if tier.difference is None else f"{tier.difference:.3g} of the largest value"
    return f"{tier.tier}: {tier.matched} of {tier.golden} golden outputs (off by {by}, {tier.tolerance:g} is allowed)"


def _drop(found: Measurements) -> Outcome:
    """The drop of the whole set on this machine, and what the tier loses beyond it on the samples that ran there."""
    if why := _untried(found):
        return Absent(why)
    if not found.records.tiers:
        return Absent(NOT_TRIED)
    here = {result.dataset: result.drop for result in found.records.accuracy}
    lost = [
        (here[each.dataset] + each.drop - each.host_drop, tier, each)
        for tier in found.records.tiers
        for each in tier.accuracy
        if each.dataset in here
    ]
    if not lost:
        return Absent("no evaluation sample ran on a tier")
    value, tier, each = max(lost, key=lambda entry: entry[0])
    note = f"worst: {tier.tier} on {each.dataset}, {each.samples} of {each.whole} samples ran there"
    return Figure(value=round(value, 9), unit="points", evidence=tier.evidence, note=note)


def _explain_drop(_: float, found: Measurements) -> Explained:
    losses = [(each.drop - each.host_drop, tier.tier, each) for tier in found.records.tiers for each in tier.accuracy]
    worst = sorted(losses, key=lambda entry: -entry[0])
    return tuple(
        f"{name} on {each.dataset}: {lost:+.2f} points beside this machine" for lost, name, each in worst[:3]
    ), (
        "More samples on each tier (tier_samples of the target) tell chance from loss; a scheme whose products are the "
        "same on every CPU (w8a8) loses nothing there."
    )


GOLDEN = Metric("share", "at least", "golden inputs that give their outputs, worst CPU tier", _match, _explain_match)
TIER_DROP = Metric("points", "at most", "drop against the float model, worst set and CPU tier", _drop, _explain_drop)
