"""The `prune` pass: fewer neurons in every feed-forward block, or fewer heads in every attention."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipeline.compress import UNITS
from pipeline.compress.importance import IMPORTANCES
from pipeline.core.errors import suggest
from pipeline.core.types import Frozen


class Prune(Frozen):
    """Structured pruning of one kind of unit; every layer loses the same share. For both kinds, list two passes.

    `unit`: FFN neurons, or attention heads (grouped-query groups whole: a key-value head with its query heads).
    `importance`: the score by which units stay. `ratio`: the share of units to remove, or `auto`: as much as the
    target's accuracy budgets bear, measured on calibration samples with the recipe's weight rounding in place,
    without recovery. `headroom`: the part of those budgets that `auto` leaves unspent, since held-out data differ.
    `max_ratio` bounds `auto`. The units kept are a multiple of `round_to` (32 neurons, 1 head unless given), so
    that kernels and quantization blocks stay aligned. `samples`: how many calibration samples are looked at;
    `seed`: of random scores and objectives.
    """

    run: ClassVar[str] = "pipeline.compress.prune_units:run"
    version: ClassVar[int] = 2

    ratio: float | Literal["auto"]
    unit: str = "ffn"
    importance: str = "l2"
    round_to: Annotated[int, Field(gt=0)] | None = None
    max_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    headroom: Annotated[float, Field(ge=0, lt=1)] = 0.3
    samples: Annotated[int, Field(ge=16)] = 256
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def searches(self) -> bool:
        """Does it look at the target's limits and the scheme?"""
        return self.ratio == "auto"

    @property
    def step(self) -> int:
        return self.round_to or UNITS.get(self.unit).round_to

    @field_validator("ratio", mode="before")
    @classmethod
    def _between(cls, ratio: object) -> object:
        number = isinstance(ratio, (int, float)) and not isinstance(ratio, bool)
        if ratio != "auto" and not (number and 0 < ratio < 1):  # type: ignore[operator]  # a number here
            raise ValueError("must be a number above 0 and below 1, or 'auto'")
        return ratio

    @field_validator("unit", "importance")
    @classmethod
    def _registered(cls, name: str, info: ValidationInfo) -> str:
        known = UNITS if info.field_name == "unit" else IMPORTANCES
        if name not in known:
            raise ValueError(f"unknown {known.kind} {name!r}. {suggest(name, known)}")
        return name
