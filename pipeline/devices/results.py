"""What the worker answers, as records: a board, or whoever brings a report, may have written anything."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.core.errors import StageError
from pipeline.core.types import Json, StrictModel
from pipeline.core.untrusted import shown
from pipeline.devices.worker import Request

MOST_RUNS, MOST_BLOCKS = 1_000_000, 10_000
_MOST_NODES = 1_000_000

Ms: TypeAlias = Annotated[float, Field(gt=0, le=1e9)]
Spent: TypeAlias = Annotated[float, Field(ge=0, le=1e9)]
Line: TypeAlias = Annotated[str, Field(max_length=2000)]
Megabytes: TypeAlias = Annotated[float, Field(ge=-1e9, le=1e9)]
Shape: TypeAlias = Annotated[list[int], Field(max_length=100)]


class _Lenient(BaseModel):
    """What is needed of an answer; it may say more."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class CpuTime(StrictModel):
    """As the worker's `cpu_time`."""

    stat: Annotated[str, Field(pattern=r"^cpu +[0-9]{1,18}( [0-9]{1,18}){7,15} *$")]
    ticks_per_second: Annotated[int, Field(gt=0, le=10**6)]
    own: Spent


class Block(StrictModel):
    """One load: a column of times for each of the models."""

    load_ms: Annotated[list[Ms], Field(min_length=1, max_length=100)]
    wall_ms: Annotated[list[list[Ms]], Field(min_length=1, max_length=MOST_RUNS)]
    cpu_ms: Annotated[list[list[Spent]], Field(max_length=MOST_RUNS)]
    switches: Annotated[list[Annotated[int, Field(ge=0, le=10**9)]], Field(max_length=MOST_RUNS)]
    cpu_time: tuple[CpuTime | None, CpuTime | None]

    @model_validator(mode="after")
    def _one_of_each_per_round(self) -> Block:
        models = {len(row) for row in (*self.wall_ms, *self.cpu_ms)}
        if not len(self.wall_ms) == len(self.cpu_ms) == len(self.switches) or models != {len(self.load_ms)}:
            raise ValueError("a round lacks a time")
        return self


class Timed(StrictModel):
    blocks: Annotated[list[Block], Field(min_length=1, max_length=MOST_BLOCKS)]


class _Parts(StrictModel):
    anonymous: Megabytes
    file: Megabytes


class Remembered(_Lenient):
    load_ms: Ms
    load_peak_mb: Megabytes | None
    run_peak_mb: Megabytes | None
    load_parts_mb: _Parts | None = None
    run_parts_mb: _Parts | None = None
    how: Line = ""
    reason: Line


class Machine(_Lenient):
    cpuinfo: Annotated[str, Field(max_length=1_000_000)]
    reason: Line
    processor: Line
    cores: Annotated[int, Field(gt=0, le=100_000)]
    memory_mb: Annotated[int, Field(ge=0, le=10**9)]
    system: Line
    onnxruntime: Annotated[str, Field(max_length=100)]


class _Fitted(_Lenient):
    fits: bool | None
    how: Line
    reason: Line


class Read(_Lenient):
    prompts: list[Annotated[list[Ms], Field(min_length=1, max_length=MOST_RUNS)]]
    places: list[Annotated[list[Ms], Field(min_length=1, max_length=MOST_RUNS)]]


class _Declared(_Lenient):
    name: Line
    type: Line
    shape: Annotated[list[int | str | None], Field(max_length=100)]


class _Answered(_Lenient):
    done: Annotated[int, Field(ge=0)]
    inputs: list[_Declared]
    outputs: list[_Declared]


class _Args(_Lenient):
    op_name: Line
    node_index: Line
    provider: Line
    input_type_shape: list[dict[str, Shape]]
    output_type_shape: list[dict[str, Shape]]


class _Kernel(_Lenient):
    name: Annotated[str, Field(pattern="_kernel_time$", max_length=10_000)]
    cat: Line
    ts: Annotated[float, Field(ge=0)]
    dur: Annotated[float, Field(ge=0)]
    args: _Args


class _ModelRun(_Lenient):
    name: Annotated[str, Field(pattern="model_run$", max_length=10_000)]
    cat: Line
    ts: Annotated[float, Field(ge=0)]


class _Profiled(_Lenient):
    events: Annotated[list[_Kernel | _ModelRun], Field(max_length=_MOST_NODES)]


Mode: TypeAlias = Literal["timing", "memory", "facts", "fit", "decoding", "answers", "profile"]
_KINDS: dict[str, type[BaseModel]] = {
    "timing": Timed,
    "memory": Remembered,
    "facts": Machine,
    "fit": _Fitted,
    "decoding": Read,
    "answers": _Answered,
    "profile": _Profiled,
}


def require_sense(request: Request, result: dict[str, Json], board: str) -> dict[str, Json]:
    """The result of a request, if it has what such a result has. StageError if not; `board`: who gave it."""
    try:
        found: dict[str, Any] = _KINDS[request.mode].model_validate(result).model_dump()
    except ValidationError as error:
        raise StageError(f"{board} gives a result that makes no sense: {mistakes(error)}.") from error
    return found


def mistakes(error: ValidationError) -> str:
    """The first of them, in words."""
    told = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5]]
    return shown("; ".join(told))
