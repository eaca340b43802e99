"""The `prune` pass with `unit = "hidden"`: a narrower residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from pipeline.compress import WIDTHS
from pipeline.compress.passes import PassConfig

if TYPE_CHECKING:
    from pipeline.compress.prune.hidden.scores import Width


class PruneHidden(PassConfig):
    """Removes features of the residual stream from every embedding, norm and projection that it runs through.

    `ratio`: the share of features that goes; the number kept is a multiple of `round_to`. `importance`: `l2` of all
    weights coupled to a feature, `activation` of the norms on calibration samples, or `random`. `change_output`: where
    the stream is the model's output too (encoders of texts), its embeddings get fewer values, which an app must be
    ready for. `samples`: how many calibration samples are looked at; `seed`: of `random`.
    """

    run: ClassVar[str] = "pipeline.compress.prune.hidden.run:run"
    version: ClassVar[int] = 2

    unit: Literal["hidden"] = "hidden"
    ratio: Annotated[float, Field(gt=0, lt=1)]
    importance: str = "activation"
    round_to: Annotated[int, Field(gt=0)] = 32
    change_output: bool = False
    samples: Annotated[int, Field(ge=16)] = 256
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def score(self) -> Width:
        return WIDTHS.get(self.importance)

    @property
    def packages(self) -> tuple[str, ...]:
        return WIDTHS.packages(self.importance)

    @field_validator("importance")
    @classmethod
    def _registered(cls, name: str) -> str:
        return WIDTHS.member(name)
