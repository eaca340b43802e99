"""The `low_rank` pass: layers become products of thinner ones."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.compress.passes import PassConfig
from pipeline.core.errors import suggest

Kind = Literal["linear", "conv", "embedding"]
Rank = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]

METHODS: dict[str, Kind] = {
    "svd": "linear",
    "asvd": "linear",
    "svd_llm": "linear",
    "tucker2": "conv",
    "tucker2_whitened": "conv",
    "cp": "conv",
}
"""What each method factorizes. Tables of embeddings have one method only, the plain SVD."""
DATA_AWARE_METHODS = ("asvd", "svd_llm", "tucker2_whitened")
"""The methods that look at what layers read."""
KINDS: tuple[Kind, ...] = ("linear", "conv", "embedding")
SIZES = ("ratio", "energy", "target_params", "target_macs", "rank")


class LowRank(PassConfig):
    """Factorize Linear, Conv2d and Embedding layers. A layer is only where that makes it smaller; the report names the
    others.

    `method`: of Linear layers `svd` (of the weight alone), `asvd` (inputs scaled by their magnitude to the power
    `alpha`, arXiv 2312.05821) or `svd_llm` (whitened by the inputs' second moments, arXiv 2403.07378); of convolutions
    `tucker2` (arXiv 1511.06530), `tucker2_whitened` (the same of whitened input channels) or `cp` (arXiv 1412.6553, at
    most `iterations`, until the relative error changes by less than `tolerance`). One of each kind can be listed.
    `layers`: the kinds `linear`, `conv` and `embedding`, or patterns of names (`encoder.*.dense`); the kinds of
    `method` unless given. `ignore`: patterns of those that stay.

    How small, exactly one of: `ratio`, the share of these layers' parameters to remove; `energy`, the share of each
    layer's squared singular values to keep; `target_params` and `target_macs`, the share that the whole model keeps
    of the parameters or of the multiply-accumulates that it has before this pass; `rank`, one for all or
    by pattern, for Tucker-2 also [outputs, inputs]. Ranks are multiples of `round_to`, except for those given.

    `allocation` of a ratio or target: `uniform`, every layer loses the same share, or `sensitivity` (the default but
    for `cp`): ranks for which the outputs that the task looks at change least, to second order. `samples`: how many
    calibration samples are looked at; `seed`: of the random objectives whose gradients `sensitivity` takes.
    """

    run: ClassVar[str] = "pipeline.compress.low_rank.run:run"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("scipy", "tensorly")

    method: Annotated[tuple[str, ...], Field(min_length=1)] = ("svd_llm",)
    layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    ignore: tuple[str, ...] = ()
    ratio: Share | None = None
    energy: Share | None = None
    target_params: Share | None = None
    target_macs: Share | None = None
    rank: Rank | dict[str, Rank | tuple[Rank, Rank]] | None = None
    allocation: Literal["uniform", "sensitivity"] | None = None
    round_to: Annotated[int, Field(gt=0)] = 8
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.5
    iterations: Annotated[int, Field(gt=0)] = 1000
    tolerance: Annotated[float, Field(gt=0)] = 1e-5
    samples: Annotated[int, Field(ge=1)] = 256
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def by_kind(self) -> dict[Kind, str]:
        """The method of every kind that has one."""
        return {METHODS[name]: name for name in self.method} | {"embedding": "svd"}

    @property
    def chosen(self) -> tuple[str, ...]:
        """`layers`, or the kinds of `method`."""
        return self.layers or tuple(METHODS[name] for name in self.method)

    @property
    def by_sensitivity(self) -> bool:
        """Are ranks to be divided by what they do to the outputs?"""
        return self.size in ("ratio", "target_params", "target_macs") and self._allocation == "sensitivity"

    @property
    def size(self) -> str:
        """Which of `SIZES` is given."""
        return next(name for name in SIZES if getattr(self, name) is not None)

    @property
    def _allocation(self) -> str:
        return self.allocation or ("uniform" if "cp" in self.method else "sensitivity")

    @field_validator("method", mode="before")
    @classmethod
    def _one_or_several(cls, method: object) -> object:
        return (method,) if isinstance(method, str) else method

    @field_validator("method")
    @classmethod
    def _known(cls, method: tuple[str, ...]) -> tuple[str, ...]:
        for name in method:
            if name not in METHODS:
                raise ValueError(f"unknown method {name!r}. {suggest(name, METHODS)}")
        kinds = [METHODS[name] for name in method]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"one method for each kind of layer; {' and '.join(method)} are for the same one")
        return method

    @field_validator("layers", mode="before")
    @classmethod
    def _one_or_more(cls, layers: object) -> object:
        return (layers,) if isinstance(layers, str) else layers

    @model_validator(mode="after")
    def _one_size(self) -> LowRank:
        given = [name for name in SIZES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(SIZES)}; given: {', '.join(given) or 'none'}")
        if self.allocation and given[0] in ("energy", "rank"):
            raise ValueError(
                f"allocation divides a ratio or target over layers; {given[0]} already says each one's rank"
            )
        return self

    @model_validator(mode="after")
    def _methods_for_layers(self) -> LowRank:
        for kind in KINDS:
            if kind in self.chosen and kind not in self.by_kind:
                fitting = " or ".join(name for name, of in METHODS.items() if of == kind)
                raise ValueError(f"layers has {kind!r}, but no method for it: add {fitting} to method")
        return self

    @model_validator(mode="after")
    def _losses_known(self) -> LowRank:
        if "cp" in self.method and (self.energy is not None or self.allocation == "sensitivity"):
            asked = "energy" if self.energy is not None else 'allocation = "sensitivity"'
            raise ValueError(
                f"{asked} needs the loss of every rank, which CP has only after a fit: use tucker2, or ratio"
            )
        return self
