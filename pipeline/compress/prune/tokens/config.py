"""The `prune` pass with `unit = "tokens"`: a smaller vocabulary."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from pipeline.compress.passes import Needs, PassConfig, VocabularyNeeds


class PruneTokens(PassConfig):
    """Removes the rows of the embedding (and of a language model's head) whose tokens a corpus does not use, and the
    tokens from the tokenizer.

    `data`: the corpus, one or more data sets as --calibration-data takes them; all of their samples count. `min_count`:
    how often a token must be used to stay. `keep_tokens`: at most that many, the most used ones. Special tokens, single
    characters and bytes stay whatever the corpus has. `samples`: how many calibration samples the cost is measured on.
    """

    run: ClassVar[str] = "pipeline.compress.prune.tokens.run:run"
    version: ClassVar[int] = 2
    local: ClassVar[frozenset[str]] = frozenset({"data"})

    unit: Literal["tokens"] = "tokens"
    data: Annotated[tuple[str, ...], Field(min_length=1)]
    min_count: Annotated[int, Field(ge=1)] = 1
    keep_tokens: Annotated[int, Field(ge=1)] | None = None
    samples: Annotated[int, Field(ge=16)] = 256

    @property
    def needs(self) -> Needs:
        return Needs(vocabulary=VocabularyNeeds(self.data, self.min_count, self.keep_tokens))

    @field_validator("data", mode="before")
    @classmethod
    def _several(cls, data: object) -> object:
        return (data,) if isinstance(data, str) else data
