"""A model as stages get it: what of it can change a result, and where it is on this machine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from pipeline.core.types import Json, StrictModel

MOST_VALUES = 2**28
"""Of one sample of an input."""
_ASSUMED = 16
"""The length of a dynamic axis, when they are counted."""
_PLACES = {"path", "entry", "tokenizer"}


DTYPE: TypeAlias = Literal[
    "float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"
]
"""Of an input."""


class InputSpec(StrictModel):
    """One input of a model that has no Hugging Face config: sizes of its axes (a name makes an axis dynamic; a
    scalar has none), and for
    integers the values it may have, 0 to `values` - 1. `next`: of a state of a streaming model, the output that is its
    value in the next step."""

    shape: tuple[Annotated[int, Field(gt=0)] | str, ...] = Field(max_length=16)
    dtype: DTYPE = "float32"
    values: Annotated[int, Field(gt=0)] = 2
    next: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> InputSpec:
        values = math.prod(_ASSUMED if isinstance(size, str) else size for size in self.shape[1:])
        if values > MOST_VALUES:
            raise ValueError(f"a sample would have {values:,} values; at most {MOST_VALUES:,} fit")
        if np.dtype(self.dtype).kind in "iu" and self.values - 1 > np.iinfo(self.dtype).max:
            raise ValueError(f"{self.dtype} has no value {self.values - 1}")
        return self


class ModelSpec(StrictModel):
    """A vetted model source, passed whole through the stages.

    `digest` covers its files, `inputs` what its graph takes where no Hugging Face config says so. `family`: what it
    puts out (a name in `tasks.registry.OUTPUTS`), as far as that is known before its graph is; `output`: the name of
    the output that is judged; `data`: the kind of its samples; `auto_class`: the transformers class that loads it.
    `preprocessing`: a recipe's image processing; `labels`: class names by index; `head`: how outputs are decoded.
    Outside the key: `path`, its folder; `entry`, the factory or ONNX file; `tokenizer`, the folder of a tokenizer in
    place of its own.
    """

    name: str
    kind: Literal["huggingface", "factory", "onnx"]
    digest: str
    task: str
    auto_class: str
    family: str
    data: Literal["text", "image", "audio", "tensor"]
    output: str
    sentence_transformer: bool = False
    trust_remote_code: bool = False
    pickle: bool = False
    inputs: dict[str, InputSpec] = Field(default={})
    preprocessing: dict[str, Any] | None = None
    labels: dict[str, str] = Field(default={})
    head: dict[str, Any] = Field(default={})
    path: Path
    entry: str = ""
    tokenizer: Path | None = None

    def identity(self) -> dict[str, Json]:
        """What of it can change a result: no place on this machine."""
        return self.model_dump(mode="json", exclude=_PLACES)

    @property
    def tokenizer_folder(self) -> Path:
        return self.tokenizer or self.path
