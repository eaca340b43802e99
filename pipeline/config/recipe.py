"""A recipe: ordered compression passes and a scheme."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.core.paths import Name
from pipeline.core.types import Frozen


class Calibration(Frozen):
    """Which samples calibrate: a set in `calibration/` or a path, and how many of them."""

    data: str = "text-en"
    samples: Annotated[int, Field(gt=0, le=10_000_000)] = 512


MOST_VALUES = 2**28
"""Of one sample of an input."""
_ASSUMED = 16
"""The length of a dynamic axis, when they are counted."""


class InputSpec(Frozen):
    """One input of a model that has no Hugging Face config: sizes of its axes (a name makes an axis dynamic; a
    scalar has none), and for
    integers the values it may have, 0 to `values` - 1."""

    shape: tuple[Annotated[int, Field(gt=0)] | str, ...] = Field(max_length=16)
    dtype: Literal["float32", "float16", "float64", "int32", "int64", "uint8", "int8", "bool"] = "float32"
    values: Annotated[int, Field(gt=0)] = 2

    @model_validator(mode="after")
    def _fits(self) -> InputSpec:
        values = math.prod(_ASSUMED if isinstance(size, str) else size for size in self.shape[1:])
        if values > MOST_VALUES:
            raise ValueError(f"a sample would have {values:,} values; at most {MOST_VALUES:,} fit")
        if np.dtype(self.dtype).kind in "iu" and self.values - 1 > np.iinfo(self.dtype).max:
            raise ValueError(f"{self.dtype} has no value {self.values - 1}")
        return self


class Recipe(Frozen):
    """`passes` run in order on the float model, each `{"pass": name, ...its config}`; then `scheme` is applied.

    `scheme` is a name, or a table with `base = name` and what differs from it. `task`, `inputs` and `preprocessing`
    (the fields of `source.images.ImagePreprocessing`) speak of the model, where it cannot do so itself: a PyTorch
    factory, an ONNX file.
    """

    name: Name
    title: str
    passes: tuple[dict[str, Any], ...] = ()
    scheme: str | dict[str, Any]
    calibration: Calibration = Calibration()
    task: str | None = None
    inputs: dict[str, InputSpec] = Field(default={})
    preprocessing: dict[str, Any] | None = None
