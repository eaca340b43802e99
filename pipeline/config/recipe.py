"""A recipe: ordered compression passes and a scheme."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipeline.core.model_spec import DTYPE
from pipeline.core.paths import Name
from pipeline.core.types import StrictModel


class Calibration(StrictModel):
    """Which samples calibrate: a set in `calibration/` or a path, and how many of them."""

    data: str = "text-en"
    samples: Annotated[int, Field(gt=0, le=10_000_000)] = 512


class DeclaredInput(StrictModel):
    """What a recipe says of one input (see `InputSpec`); what it leaves out, the model says."""

    shape: tuple[Annotated[int, Field(gt=0)] | str, ...] | None = Field(default=None, max_length=16)
    dtype: DTYPE | None = None
    values: Annotated[int, Field(gt=0)] | None = None
    next: str | None = None
    value: bool | int | float | None = None
    fold: bool | None = None


class Recipe(StrictModel):
    """`passes` run in order on the float model, each `{"pass": name, ...its config}`; then `scheme` is applied.

    `scheme` is a name, or a table with `base = name` and what differs from it. `task`, `inputs`, `preprocessing`
    (the fields of `data.image_preprocessing.ImagePreprocessing`) and `head` (how outputs are decoded: the fields of the
    `head_model` of the kind of output) speak of the model, where it cannot do so itself: a PyTorch factory, an ONNX
    file.
    """

    name: Name
    title: str
    passes: tuple[dict[str, Any], ...] = ()
    scheme: str | dict[str, Any]
    calibration: Calibration = Calibration()
    task: str | None = None
    inputs: dict[str, DeclaredInput] = Field(default={})
    preprocessing: dict[str, Any] | None = None
    head: dict[str, Any] = Field(default={})
