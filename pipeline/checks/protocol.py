"""What the measuring process is asked, and the node records it returns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.target import Runtime
from pipeline.core.types import Frozen

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]


class Subject(Frozen):
    """A model under a runtime. `inputs`: a file of `write_feed`."""

    model: Path
    inputs: Path
    runtime: Runtime


class TimingRequest(Frozen):
    """Time single inferences of the `subjects`, which take turns in rounds, each round in an order drawn from `seed`.

    Up to `blocks` times the models are loaded anew. A block has at least `min_rounds`, and goes on until
    `block_seconds`, or `enough_rounds` and half of that time; but at `slow_seconds` it stops after two. After
    `max_seconds` no block begins beyond the third.
    """

    mode: Literal["timing"] = "timing"
    subjects: tuple[Subject, ...] = Field(min_length=1)
    seed: Annotated[int, Field(ge=0)] = 0
    blocks: Count = 5
    warmup: Count = 10
    warmup_seconds: Positive = 0.3
    min_rounds: Annotated[int, Field(ge=2)] = 10
    enough_rounds: Count = 200
    block_seconds: Positive = 0.5
    slow_seconds: Positive = 3.0
    max_seconds: Positive = 30.0


class MemoryRequest(Frozen):
    """Load `model` and run it `runs` times, watching the peaks of resident memory."""

    mode: Literal["memory"] = "memory"
    model: Path
    inputs: Path
    runtime: Runtime
    runs: Count = 3


class ProfileRequest(Frozen):
    """Time all nodes over `runs` inferences after `warmup`; the graph that ran goes to `optimized_model`."""

    mode: Literal["profile"] = "profile"
    model: Path
    inputs: Path
    runtime: Runtime
    warmup: Annotated[int, Field(ge=0)] = 5
    runs: Count = 20
    optimized_model: Path


Request = TimingRequest | MemoryRequest | ProfileRequest


class NodeRecord(Frozen):
    """One node of the graph that ONNX Runtime ran.

    `ms`: its kernel's time per inference; `calls` per inference differ from 1 in loop and branch bodies only.
    Shapes are those of one call; constants that the kernel repacked at load are missing from `input_shapes`.
    """

    name: str
    op_type: str
    provider: str
    ms: float
    calls: float
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
