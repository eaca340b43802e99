"""What a user asks for: one export or one check, with everything the flags can change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from pydantic import Field

from pipeline.config.target import LONGEST, MOST_BATCHED, MOST_THREADS, Layout
from pipeline.core.types import Json, StrictModel

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_TARGET = "phone"
OPSETS = (21, 22, 23)
"""INT4 tensors need 21, the Attention operator 23; newer ones are not tried yet."""


class Options(TypedDict, total=False):
    """The fields of `Job` beside model and target, as Python calls take them."""

    recipe: str | None
    task: str | None
    output: str | Path | None
    opset: int | None
    min_onnxruntime: str | None
    layout: Layout | None
    format: Literal["onnx", "ort"]
    batch_size: int | None
    sequence_length: int | None
    threads: int | None
    runner: str | None
    trust_remote_code: bool
    allow_pickle: bool
    calibration_data: str | None
    calibration_samples: int | None
    random_calibration: bool
    training_data: Sequence[str]
    eval_data: Sequence[str]
    text_column: str | None
    label_column: str | None
    golden_from: Literal["data", "shipped", "random"]
    save_model: bool
    metric: str | None
    references: str | Path | None
    scheme: Mapping[str, Json]
    budgets: Mapping[str, float]
    baseline: str | Path | None
    tolerances: Mapping[str, float]


class Job(StrictModel):
    """One export. None means: as the target or the recipe says."""

    model: str = DEFAULT_MODEL
    target: str = DEFAULT_TARGET
    recipe: str | None = None
    task: str | None = None
    output: Path | None = None
    opset: Annotated[int, Field(ge=min(OPSETS), le=max(OPSETS))] | None = Field(
        default=None, description="None: the newest for what is traced, the oldest that does for an ONNX file"
    )
    min_onnxruntime: str | None = Field(default=None, description="the oldest ONNX Runtime that must load the bundle")
    layout: Layout | None = Field(default=None, description="how the bundle's files lie, or for which client")
    format: Literal["onnx", "ort"] = Field(default="onnx", description="ort: graphs in ONNX Runtime's own format too")
    batch_size: Annotated[int, Field(gt=0, le=MOST_BATCHED)] | None = None
    sequence_length: Annotated[int, Field(gt=1, le=LONGEST)] | None = None
    threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] | None = None
    runner: str | None = Field(default=None, description="where the bundle is measured: NAME or NAME:PLACE")
    trust_remote_code: bool = False
    allow_pickle: bool = False
    calibration_data: str | None = None
    calibration_samples: Annotated[int, Field(gt=0, le=10_000_000)] | None = None
    random_calibration: bool = False
    training_data: tuple[str, ...] = Field(default=(), description="data sets that distill trains on")
    eval_data: tuple[str, ...] = ()
    text_column: str | None = Field(default=None, description="the column of the texts in .csv, .tsv and .jsonl files")
    label_column: str | None = Field(default=None, description="the column of their labels")
    golden_from: Literal["data", "shipped", "random"] = Field(
        default="data", description="what the bundle's golden samples are made of"
    )
    save_model: bool = Field(default=False, description="publish the compressed PyTorch model too")
    metric: str | None = Field(default=None, description="file.py:name of a function (outputs, references) -> float")
    references: Path | None = Field(default=None, description="a .csv with a row per evaluation sample")
    scheme: dict[str, Json] = Field(default={}, description="fields of the scheme that override the recipe's")
    budgets: dict[str, float] = Field(default={}, description="limits that override the target's")
    baseline: Path | None = None
    tolerances: dict[str, float] = Field(
        default={}, description="by how much a figure may be worse than the baseline's"
    )
