"""How many units of each layer stay: a `ratio`, a target for the whole model, or counts by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipeline.compress.prune.config import Prune
from pipeline.compress.prune.pruner import Pruner
from pipeline.compress.prune.schedules import first, pruning_schedule, rounded
from pipeline.compress.prune.units import KeptCounts, UnitGroup, UnitKind
from pipeline.compress.shared.cost import parameters
from pipeline.compress.shared.patterns import matches, require_matches
from pipeline.core.errors import StageError


class Amount:
    """What a pass asks for, in shares of the model that it began with (`start`: units by layer)."""

    def __init__(self, pruner: Pruner) -> None:
        self._config = config = pruner.config
        self._start = {group.layer: group.count for group in pruner.groups}
        self._final: dict[str, int] = {}
        self._cost = 0
        if config.keep is not None:
            self._final = given_counts(pruner.groups, pruner.kind, config)
        elif isinstance(config.ratio, float) and config.ranking == "layer":
            require_left(pruner.counts, pruner.kind, config.ratio, config.step)
            require_less(pruner.counts, pruner.kind, config.ratio, config.step)
        elif config.ratio is None:
            self._cost = self._measure(pruner, pruner.counts)

    def choice(self, pruner: Pruner, part: float) -> KeptCounts:
        """Units of each layer of `pruner` that stay when `part` of what is to go has gone."""
        if self._final:
            return tuple(min(group.count, self._between(group.layer, part)) for group in pruner.groups)
        config = self._config
        if isinstance(config.ratio, float) and config.ranking == "layer":
            return self._same_share(pruner, 1 - config.ratio * part)
        schedule = pruning_schedule(pruner.scores, config.step, config.ranking)
        if isinstance(config.ratio, float):
            total = sum(self._start.values())
            return reach(schedule, lambda choice: sum(choice) / total, 1 - config.ratio * part, config)
        target = config.target_macs or config.target_params or 1.0
        return reach(
            schedule, lambda choice: self._measure(pruner, choice) / self._cost, 1 - (1 - target) * part, config
        )

    def _between(self, layer: str, part: float) -> int:
        return self._start[layer] - int((self._start[layer] - self._final[layer]) * part)

    def _same_share(self, pruner: Pruner, share: float) -> KeptCounts:
        step, most = self._config.step, max(self._start.values())
        keep = rounded(most, share, step)
        if keep == most:
            return pruner.counts
        starts = (self._start[group.layer] for group in pruner.groups)
        wanted = (max(rounded(start, keep / most, step), 1) for start in starts)
        return tuple(min(group.count, count) for group, count in zip(pruner.groups, wanted, strict=True))

    def _measure(self, pruner: Pruner, choice: KeptCounts) -> int:
        model = pruner.pruned(choice)
        return pruner.data.macs(model) if self._config.target_macs else parameters(model)


def given_counts(groups: Sequence[UnitGroup], kind: UnitKind, config: Prune) -> dict[str, int]:
    """What `keep` says, by layer: shares are rounded to a multiple of the step, numbers are not."""
    keep = config.keep
    assert keep is not None  # noqa: S101  # asked by the caller
    if isinstance(keep, Mapping):
        wanted = _by_pattern([group.layer for group in groups], keep)
    elif len(keep) == len(groups):
        wanted = dict(zip((group.layer for group in groups), keep, strict=True))
    else:
        raise StageError(
            f"prune: keep lists {len(keep)} layers, but {len(groups)} have {kind.plural} that can be removed.",
            f"They are, in order: {', '.join(group.layer for group in groups)}.",
        )
    return {group.layer: _given(group, wanted.get(group.layer), kind, config.step) for group in groups}


def _by_pattern(layers: Sequence[str], table: Mapping[str, float]) -> dict[str, float]:
    """The first pattern that matches a layer speaks for it."""
    require_matches("prune", "keep", table, layers, "layer")
    return {layer: table[name] for name in reversed(list(table)) for layer in layers if matches(layer, [name])}


def _given(group: UnitGroup, value: float | None, kind: UnitKind, step: int) -> int:
    if value is None:
        return group.count
    count = rounded(group.count, value, step) if value < 1 else int(value)
    if count > group.count:
        raise StageError(
            f"prune: keep gives {group.layer!r} {count} {kind.plural}, but it has {group.count}.", "Lower the number."
        )
    if count == 0:
        raise StageError(
            f"prune: keep gives {group.layer!r} {value:g} of its {group.count} {kind.plural}, rounded to multiples of "
            f"{step}, which would empty it.",
            "Raise the share or lower round_to.",
        )
    return count


def require_left(counts: Sequence[int], kind: UnitKind, ratio: float, step: int) -> None:
    """StageError if removing `ratio` of every layer would empty the smallest."""
    if rounded(min(counts), 1 - ratio, step) <= 0:
        raise StageError(
            f"prune: a ratio of {ratio} of {min(counts)} {kind.plural}, rounded to multiples of {step}, would empty "
            f"every {kind.place}.",
            "Lower ratio or round_to.",
        )


def require_less(counts: Sequence[int], kind: UnitKind, ratio: float, step: int) -> None:
    """StageError if rounding has eaten all that `ratio` was to remove."""
    if rounded(max(counts), 1 - ratio, step) == max(counts):
        raise StageError(
            f"prune: a ratio of {ratio} of {max(counts)} {kind.plural}, rounded to multiples of {step}, would remove "
            "nothing.",
            "Raise ratio, lower round_to, or remove the prune pass from the recipe.",
        )


def reach(
    schedule: Sequence[KeptCounts], cost: Callable[[KeptCounts], float], goal: float, config: Prune
) -> KeptCounts:
    """The choice of most units whose cost is at most `goal`; StageError that names the least if there is none."""
    found = first(schedule, lambda choice: cost(choice) <= goal)
    if found is None:
        name = next(name for name in ("ratio", "target_macs", "target_params") if getattr(config, name) is not None)
        raise StageError(
            f"prune: {name} = {getattr(config, name):g} cannot be reached: with {config.step} left in each layer, "
            f"{cost(schedule[-1]):.3f} of the whole still remain.",
            f"{'Lower' if name == 'ratio' else 'Raise'} {name}, lower round_to, or ignore fewer layers.",
        )
    return found
