"""The `prune` pass: fewer neurons in every feed-forward block."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.core.types import Frozen


class Prune(Frozen):
    """Structured pruning of FFN neurons by the L2 magnitude of their coupled weights; every layer keeps the same
    number.

    `ratio`: the share of neurons to remove, or `auto`: as much as the target's accuracy budgets bear, measured on
    calibration samples with the recipe's weight rounding in place, without recovery. `headroom`: the part of those
    budgets that `auto` leaves unspent, since held-out data differ. `max_ratio` bounds `auto`. The neurons kept are
    a multiple of `round_to`, so that kernels and quantization blocks stay aligned.
    """

    run: ClassVar[str] = "pipeline.compress.prune_ffn:run"
    version: ClassVar[int] = 1

    ratio: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"]
    unit: Literal["ffn"] = "ffn"
    importance: Literal["l2"] = "l2"
    round_to: Annotated[int, Field(gt=0)] = 32
    max_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    headroom: Annotated[float, Field(ge=0, lt=1)] = 0.3
    samples: Annotated[int, Field(ge=16)] = 256
