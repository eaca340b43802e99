"""The `prune` pass: fewer neurons, attention heads or convolution channels."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.compress import IMPORTANCES, STRUCTURES, UNITS
from pipeline.compress.passes import Needs, PassConfig
from pipeline.core.errors import UsageError, suggest
from pipeline.tasks.registry import OUTPUTS

if TYPE_CHECKING:
    from pipeline.compress.prune.units import Importance, UnitKind

AMOUNTS = ("ratio", "target_macs", "target_params", "keep")
Share = Annotated[float, Field(gt=0, lt=1)]


class Prune(PassConfig):
    """Structured pruning of one kind of unit; for several kinds, list several passes.

    `unit`: FFN neurons, attention heads (grouped-query groups whole: a key-value head with its query heads), or
    convolution channels with all that is coupled to them. `importance`: the score by which units stay.

    The amount is one of: `ratio`, the share of units to remove, or `auto`: as much as the target's accuracy budgets
    bear, measured on calibration samples with the recipe's weight rounding in place, without recovery; `target_macs`,
    `target_params`: the share of the model's multiply-accumulates or parameters that remains at most; `keep`: how many
    units stay (a number, or a share below 1), as a list of all layers in order, or by name pattern.

    `ranking`: with `layer` every layer loses the same share; with `global` units of all layers compete, each scored by
    its multiple of its layer's mean. `steps`: remove in so many steps, scoring what is left before each. The units kept
    are a multiple of `round_to` (32 neurons, 8 channels, 1 head unless given), so that kernels and quantization blocks
    stay aligned. `ignore`: name patterns of layers to leave alone. `headroom`: the part of the budgets that `auto`
    leaves unspent, since held-out data differ; `max_ratio` bounds it. `samples`: how many calibration samples are
    looked at; `seed`: of random scores and objectives.
    """

    run: ClassVar[str] = "pipeline.compress.prune.run:run"
    version: ClassVar[int] = 5

    ratio: float | Literal["auto"] | None = None
    target_macs: Share | None = None
    target_params: Share | None = None
    keep: tuple[int | float, ...] | dict[str, int | float] | None = None
    unit: str = "ffn"
    importance: str = "l2"
    ranking: Literal["layer", "global"] = "layer"
    steps: Annotated[int, Field(gt=0)] = 1
    round_to: Annotated[int, Field(gt=0)] | None = None
    ignore: tuple[str, ...] = ()
    max_ratio: Share = 0.5
    headroom: Annotated[float, Field(ge=0, lt=1)] = 0.3
    samples: Annotated[int, Field(ge=16)] = 256
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def needs(self) -> Needs:
        searches = self.ratio == "auto"
        return Needs(scheme=searches, limits=searches)

    @property
    def packages(self) -> tuple[str, ...]:
        return (*UNITS.packages(self.unit), *IMPORTANCES.packages(self.importance))

    @property
    def kind(self) -> UnitKind:
        return UNITS.get(self.unit)

    @property
    def score(self) -> Importance:
        return IMPORTANCES.get(self.importance)

    @property
    def step(self) -> int:
        return self.round_to or self.kind.round_to

    def check(self, family: str, where: str) -> None:
        if self.unit == "heads" and OUTPUTS.get(family).self_labelled:
            raise UsageError(
                f"{where} prunes attention heads; a language model's keys and values, which its graph takes and gives, "
                "have as many heads as before.",
                "Prune layers, ffn or hidden.",
            )

    @field_validator("ratio", mode="before")
    @classmethod
    def _between(cls, ratio: object) -> object:
        number = isinstance(ratio, (int, float)) and not isinstance(ratio, bool)
        if ratio is not None and ratio != "auto" and not (number and 0 < ratio < 1):  # type: ignore[operator]  # a number here
            raise ValueError("must be a number above 0 and below 1, or 'auto'")
        return ratio

    @field_validator("keep", mode="before")
    @classmethod
    def _counts(cls, keep: object) -> object:
        if keep is not None and not (
            isinstance(keep, (list, tuple, dict)) and keep and all(map(_amount, _values(keep)))
        ):
            raise ValueError(
                "must be a list of all layers, or a table by name pattern, of numbers of units (1 or more) or shares "
                "(above 0 and below 1)"
            )
        return keep

    @field_validator("unit", "importance")
    @classmethod
    def _registered(cls, name: str, info: ValidationInfo) -> str:
        if info.field_name == "unit" and name not in UNITS:
            raise ValueError(f"unknown unit {name!r}. {suggest(name, (*UNITS, *STRUCTURES))}")
        return (UNITS if info.field_name == "unit" else IMPORTANCES).member(name)

    @model_validator(mode="after")
    def _one_amount(self) -> Prune:
        given = [name for name in AMOUNTS if getattr(self, name) is not None]
        if len(given) != 1:
            said = f"{' and '.join(given)} are given" if given else "no amount is given"
            raise ValueError(f"{said}: give exactly one of {', '.join(AMOUNTS)}")
        if self.ratio == "auto" and self.steps > 1:
            raise ValueError("steps needs a fixed amount: ratio = 'auto' searches in one step")
        if self.keep is not None and self.ranking == "global":
            raise ValueError("keep says how many units stay in each layer: ranking = 'global' has no say in it")
        return self


def _values(keep: Collection[object]) -> Collection[object]:
    return keep.values() if isinstance(keep, dict) else keep


def _amount(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 < value < 1 or (value >= 1 and value == int(value))
