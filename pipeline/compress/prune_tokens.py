"""The `prune` pass with `unit = "tokens"`: a smaller vocabulary."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from pipeline.core.types import Frozen


class PruneTokens(Frozen):
    """Removes the rows of the embedding (and of a language model's head) whose tokens a corpus does not use, and the
    tokens from the tokenizer.

    `data`: the corpus, one or more data sets as --calibration-data takes them; all of their samples count. `min_count`:
    how often a token must be used to stay. `keep_tokens`: at most that many, the most used ones. Special tokens, single
    characters and bytes stay whatever the corpus has. `samples`: how many calibration samples the cost is measured on.
    """

    run: ClassVar[str] = "pipeline.compress.vocabulary.run:run"
    version: ClassVar[int] = 1
    local: ClassVar[frozenset[str]] = frozenset({"data"})
    """What is a place on this machine and no part of a stage's key."""

    unit: Literal["tokens"] = "tokens"
    data: Annotated[tuple[str, ...], Field(min_length=1)]
    min_count: Annotated[int, Field(ge=1)] = 1
    keep_tokens: Annotated[int, Field(ge=1)] | None = None
    samples: Annotated[int, Field(ge=16)] = 256

    @field_validator("data", mode="before")
    @classmethod
    def _several(cls, data: object) -> object:
        return (data,) if isinstance(data, str) else data
