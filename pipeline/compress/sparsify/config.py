"""The `sparsify` pass: single weights become zero, in any place or in an N:M pattern."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.compress.passes import PassConfig
from pipeline.numerics.sparse import Amount, Pattern, Share

_SCOPES = {"magnitude": ("layer", "row", "global"), "wanda": ("row", "layer"), "sparsegpt": ("layer",)}
"""Method -> what shares one threshold; the first is the paper's."""


class Sparsify(PassConfig):
    """Zeros among the weights of Linear and Conv2d layers.

    `method`: by `magnitude` (no samples are looked at); `wanda`, magnitude times the norm of the input (arXiv
    2306.11695); or `sparsegpt` (arXiv 2301.00774), which changes the weights that stay so that outputs change least.
    `sparsity`: the share of zeros; or `pattern`: "N:M", at most N of every M neighbours in a row stay. `scope`: what
    shares one threshold: every `row` (the inputs of one output), every `layer`, or all layers together (`global`);
    the method's own unless given. `layers`, `ignore`: name patterns (`*`, `?`, `[...]`) of layers to take and to leave
    out. `sweeps`: of coordinate descent over the weights that stay, after SparseGPT; 0 is the paper's algorithm alone.
    `samples`: how many calibration samples are looked at. `sequential`: every block of the model is calibrated on
    what the blocks before it give when they are sparse, which takes half a pass over the samples per block; else one
    pass is enough, but the moments of all layers are in memory at once.
    """

    run: ClassVar[str] = "pipeline.compress.sparsify.run:run"
    version: ClassVar[int] = 3

    method: Literal["magnitude", "wanda", "sparsegpt"] = "sparsegpt"
    sparsity: float | None = None
    pattern: str | None = None
    scope: Literal["row", "layer", "global"] | None = None
    layers: tuple[str, ...] = ("*",)
    ignore: tuple[str, ...] = ()
    sweeps: Annotated[int, Field(ge=0)] = 2
    samples: Annotated[int, Field(ge=16)] = 256
    sequential: bool = True

    @property
    def shared(self) -> str:
        """The scope in force; empty with a pattern, which has its own."""
        return "" if self.pattern else self.scope or _SCOPES[self.method][0]

    @property
    def n_of_m(self) -> Pattern | None:
        return None if self.pattern is None else Pattern.parse(self.pattern)

    @property
    def amount(self) -> Amount:
        assert self.sparsity is not None or self.pattern is not None  # noqa: S101  # validated
        return self.n_of_m or Share(self.sparsity or 0.0, per_row=self.shared == "row")

    @field_validator("sparsity", mode="before")
    @classmethod
    def _between(cls, sparsity: object) -> object:
        number = isinstance(sparsity, (int, float)) and not isinstance(sparsity, bool)
        if sparsity is not None and not (number and 0 < sparsity < 1):  # type: ignore[operator]  # a number here
            raise ValueError("must be a number above 0 and below 1")
        return sparsity

    @field_validator("pattern")
    @classmethod
    def _n_of_m(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            Pattern.parse(pattern)
        return pattern

    @model_validator(mode="after")
    def _one_amount(self) -> Sparsify:
        if (self.sparsity is None) == (self.pattern is None):
            raise ValueError("needs either sparsity or pattern, and not both")
        if self.scope is not None and self.pattern is not None:
            raise ValueError("scope: a pattern has its own; remove one of the two")
        if self.scope not in (None, *_SCOPES[self.method]):
            raise ValueError(f"scope: {self.method} takes {' or '.join(_SCOPES[self.method])}, not {self.scope}")
        return self
