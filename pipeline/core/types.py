"""The vocabulary that all packages share: evidence, verdicts, number formats, figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.core.errors import UsageError, suggest

_SHOWN = 40  # mistakes of one record


class StrictModel(BaseModel):
    """Base of all config and report records: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], where: str) -> Self:
        """The record in plain data that a user wrote. UsageError that begins with `where` and lists all mistakes at
        once, unknown keys with the nearest known one."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            lines = [_explain(cls, dict(item)) for item in error.errors()]
            shown = [f"  - {line}" for line in lines[:_SHOWN]] + ["  - ..."] * (len(lines) > _SHOWN)
            raise UsageError(f"{where} has {_count(lines)}:\n" + "\n".join(shown)) from error


def _count(lines: Iterable[str]) -> str:
    number = len(list(lines))
    return f"{number} mistake" + ("" if number == 1 else "s")


def _explain(model: type[BaseModel], item: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{place}: unknown key. {suggest(str(item['loc'][-1]), _fields_at(model, item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"{place}: is missing"
    message = item["msg"].removeprefix("Value error, ")
    given = item["input"]
    shown = f" (given: {given!r})" if isinstance(given, (str, int, float)) else ""
    return f"{place}: {message}{shown}" if place else message


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> set[str]:
    """The known keys at a nested place, as far as the types tell."""
    for part in location:
        field = model.model_fields.get(str(part))
        nested = _model_in(field.annotation) if field else None
        if nested is not None:
            model = nested
    return set(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The record type inside `X`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((found for found in inner if found is not None), None)


class Evidence(StrEnum):
    """How a figure was got."""

    DEVICE = "device"
    EMULATED = "emulated"
    HOST = "host"
    ESTIMATED = "estimated"


class Verdict(StrEnum):
    PASS = "PASS"  # noqa: S105  # a verdict, not a password
    FAIL = "FAIL"
    NOT_MEASURED = "NOT_MEASURED"


class Learning(StrictModel):
    """How codes and scales are learned (`Scheme.rounding` `learned`).

    `window`: tokens of a text at a time. `batch`: windows of one update. `epochs`: how often each block sees all
    windows. `rate`: Adam's, of weights in units of their block's scale; `scale_rate`: of scales, in shares of
    themselves. `tuning_steps`: updates of all scales together, by distillation, once all codes are decided
    (EfficientQAT, arXiv 2407.11062, sec. 3.3): gradients go through the whole model then, which must fit into memory
    with them.
    """

    window: Annotated[int, Field(ge=2, le=131072)] = 256
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    epochs: Annotated[int, Field(ge=1, le=1000)] = 2
    rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    scale_rate: Annotated[float, Field(gt=0, le=1)] = 0.003
    tuning_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Scheme(StrictModel):
    """Number formats of a quantized model.

    `weights`, `embeddings`: bits of a stored value (32 is float, 16 is float16 that becomes float32 when the model is
    loaded or its rows are read). `activations`: how the inputs of weighted products are rounded: `float` (not at all),
    `dynamic` (ranges found at run time), `static` (calibrated).
    `everywhere`: the bits to which static ranges round what all operators take and give, as NPUs want it; null rounds
    around weighted products alone.
    `reduce_range`: 8-bit weight codes of which two neighbours of one sign add up to 128 at most, so that the 16-bit
    pair sums of x86 without VNNI cannot saturate (255 * 128 < 2**15) and one file answers alike on every CPU.
    `head`: bits of the blocks of the last products, whose results are outputs of the model (a language model's logits,
    a classifier's scores); null for those of other products. A table of embeddings that is also the head's weight is
    read from the head's blocks if they have as many bits as `embeddings`, or more.
    `block_size`, `embedding_block_size`: how many values share a scale where weights or embeddings are stored in
    blocks, and `scale_bits` its bits. `symmetric`: the middle code is the zero of every block; otherwise each block
    stores its own, of as many bits as a code. `block_scales`: how scales and zero points of blocks are chosen, from
    the extremes of their values (`minmax`), for the least squared error (`mse`), or so that outliers count little
    (`hqq`, half-quadratic splitting). With `dynamic` activations, 4-bit
    blocks are widened to 8-bit codes when the model is loaded: a small file, and the arithmetic of 8 bits.
    `rounding` of weights in 4 or 2 bits: each to the `nearest` code; together so that products on calibration samples
    change least (`gptq`, arXiv 2210.17323), and after that each code and scale once more in turn (`descent`, as arXiv
    2403.07134 and 2406.17542 do); or `learned` with their scales, block by block of a language model, as `learning`
    says.
    `smoothing`: alpha of SmoothQuant (arXiv 2211.10438, eq. 4), or null for none.
    `activation_aware`: scale the channels of products so that rounding their weights costs less, where the operators
    before can take the factors over (AWQ, arXiv 2306.00978).
    `min_sqnr_db`: leave the fewest layers in float with which the output, on calibration samples, reaches this ratio
    of signal to quantization noise; null leaves none.
    `average_bits`: store each product in blocks of 2, 4 or 8 bits so that they have so many on average (scales and
    zero points counted) and the output, on calibration samples, loses least; null stores all in `weights`.
    `cache`: bits of the keys and values that a language model keeps of the tokens before: 32, 16 (float16), or 8 with a
    scale for each channel of each head, calibrated.
    `bias_correction`: take the mean shift that rounded weights cause out of the biases of static convolutions.
    `overrides`: pairs of a name pattern of nodes and the number format (`edge formats`) that their weights get in place
    of the one above; a recipe writes them as a table. Of several patterns that match, the last decides.
    """

    name: str
    weights: Literal[32, 16, 8, 4, 2] = 32
    activations: Literal["float", "dynamic", "static"] = "float"
    everywhere: Literal[16, 8] | None = Field(default=None, exclude_if=lambda bits: bits is None)
    embeddings: Literal[32, 16, 8, 4, 2] = 32
    head: Literal[8, 4, 2] | None = None
    per_channel: bool = True
    reduce_range: bool = True
    block_size: Literal[16, 32, 64, 128, 256] = 32
    embedding_block_size: Literal[16, 32, 64, 128, 256] = 32
    scale_bits: Literal[32, 16] = 32
    symmetric: bool = True
    block_scales: Literal["minmax", "mse", "hqq"] = "mse"
    rounding: Literal["nearest", "gptq", "descent", "learned"] = "nearest"
    learning: Learning | None = Field(default=None, exclude_if=lambda learning: learning is None)
    accuracy_level: Literal[0, 1, 4] = 0
    smoothing: Annotated[float, Field(ge=0, le=1)] | None = None
    activation_aware: bool = False
    observer: str = "minmax"
    percentile: float = 99.99
    cache: Literal[32, 16, 8] = Field(default=32, exclude_if=lambda bits: bits == 32)
    bias_correction: bool = True
    min_sqnr_db: float | None = None
    average_bits: Annotated[float, Field(gt=2, le=16)] | None = None
    nodes_to_exclude: tuple[str, ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()

    @field_validator("overrides", mode="before")
    @classmethod
    def _in_order(cls, given: object) -> object:
        return tuple(given.items()) if isinstance(given, Mapping) else given


class Doubt(StrictModel):
    """Which limits a noisy figure cannot decide: those between `low` and `high`; without them, any.

    `why` says what leaves it open, `remedy` what would settle it.
    """

    low: float | None = None
    high: float | None = None
    why: str
    remedy: str = ""

    def covers(self, limit: float) -> bool:
        return (self.low is None or self.low < limit) and (self.high is None or limit < self.high)


class Figure(StrictModel):
    """One number, with its unit, how it was got, and the ends of its 95 % confidence interval if it has one.

    `doubt`: None where every repetition gives the same number (bytes, shares of weights), so that any limit is decided.
    """

    value: float
    unit: str
    evidence: Evidence
    low: float | None = None
    high: float | None = None
    note: str = ""
    doubt: Doubt | None = None


def computed(value: float, unit: str, note: str = "") -> Figure:
    """A size, a count or a comparison of outputs, which this process made of what lies here."""
    return Figure(value=value, unit=unit, evidence=Evidence.HOST, note=note)


Progress = Callable[[int, int], None]
"""Called with (done, total); total 0 where it is not known."""


def silent(done: int, total: int) -> None:
    """The progress callback that shows nothing."""


def share_of(progress: Progress, number: int, count: int) -> Progress:
    """The progress of the part `number` of `count` parts of what `progress` tells."""

    def told(done: int, total: int) -> None:
        progress(number * total + done, count * total)

    return told


Json = Any
"""What `json.dumps` takes; recursive aliases cost more than they catch here."""
