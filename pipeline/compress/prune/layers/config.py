"""The `prune` pass with `unit = "layers"`: fewer blocks in every stack of alike ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.compress import DEPTHS
from pipeline.compress.passes import PassConfig

if TYPE_CHECKING:
    from pipeline.compress.prune.layers.scores import Depth


class PruneLayers(PassConfig):
    """Removes whole blocks of a ModuleList or Sequential of alike blocks (a transformer's layers, a ResNet's stages).

    `keep`: the blocks that stay, counted from 0; or `ratio`: the share that goes, by `importance`: `block_influence`
    (those that change what passes through them least), `even` (spread over the depth, the first and the last stay) or
    `random`. `stacks`: a pattern of names, if only some stacks shall lose blocks. Blocks that change the shape of what
    passes through them always stay. `samples`: how many calibration samples are looked at; `seed`: of `random`.
    """

    run: ClassVar[str] = "pipeline.compress.prune.layers.run:run"
    version: ClassVar[int] = 2

    unit: Literal["layers"] = "layers"
    keep: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    importance: str = "block_influence"
    stacks: str = "*"
    samples: Annotated[int, Field(ge=1)] = 256
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("keep")
    @classmethod
    def _ascending(cls, keep: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if keep is not None and list(keep) != sorted(set(keep)):
            raise ValueError(f"must ascend, each block once, not {list(keep)}")
        return keep

    @property
    def score(self) -> Depth:
        return DEPTHS.get(self.importance)

    @property
    def packages(self) -> tuple[str, ...]:
        return DEPTHS.packages(self.importance)

    @field_validator("importance")
    @classmethod
    def _registered(cls, name: str) -> str:
        return DEPTHS.member(name)

    @model_validator(mode="after")
    def _one_amount(self) -> PruneLayers:
        if (self.keep is None) == (self.ratio is None):
            raise ValueError("give keep = [block, ...] or ratio = share, one of the two")
        return self
