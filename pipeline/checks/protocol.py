"""What the measuring process is asked, and the node records it returns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.target import Runtime
from pipeline.core.types import Frozen

Count = Annotated[int, Field(gt=0)]


class LatencyRequest(Frozen):
    """Time single inferences of `model`, interleaved with `float_model` if there is one.

    `inputs`: a file of `write_feed`. Stops when the 95 % interval of both medians is within
    `target_half_width` (a share) of them and at least `min_runs` are done, or at `max_runs` or `max_seconds`.
    """

    mode: Literal["latency"] = "latency"
    model: Path
    float_model: Path | None = None
    inputs: Path
    runtime: Runtime
    warmup: Annotated[int, Field(ge=0)] = 10
    min_runs: Annotated[int, Field(ge=50)] = 100
    max_runs: Count = 1000
    max_seconds: Annotated[float, Field(gt=0)] = 60.0
    target_half_width: Annotated[float, Field(gt=0)] = 0.02


class CandidatesRequest(Frozen):
    """Time single inferences of each of `models` in turn, the first being the float model; `inputs`: a file of
    `write_feed` for each. Stops as a LatencyRequest does."""

    mode: Literal["candidates"] = "candidates"
    models: tuple[Path, ...] = Field(min_length=2)
    inputs: tuple[Path, ...] = Field(min_length=2)
    runtime: Runtime
    warmup: Annotated[int, Field(ge=0)] = 5
    min_runs: Annotated[int, Field(ge=50)] = 100
    max_runs: Count = 400
    max_seconds: Annotated[float, Field(gt=0)] = 90.0
    target_half_width: Annotated[float, Field(gt=0)] = 0.01


class VariantsRequest(Frozen):
    """Time single inferences of `model` under each of `runtimes` in turn, `runs` times."""

    mode: Literal["variants"] = "variants"
    model: Path
    inputs: Path
    runtimes: tuple[Runtime, ...] = Field(min_length=2)
    warmup: Annotated[int, Field(ge=0)] = 10
    runs: Count = 150


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


Request = LatencyRequest | CandidatesRequest | VariantsRequest | MemoryRequest | ProfileRequest


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
