"""A model as stages get it: what of it can change a result, and where it is on this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pipeline.core.types import Json, StrictModel

MOST_VALUES = 2**28
"""Of one sample of an input."""
_ASSUMED = 16
"""The length of a dynamic axis, when they are counted."""
_PLACES = {"path", "entry", "tokenizer", "stamps"}


DTYPE: TypeAlias = Literal[
    "float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"
]
"""Of an input."""


class InputSpec(StrictModel):
    """One input of a model that has no Hugging Face config: sizes of its axes (a name makes an axis dynamic; a
    scalar has none), and for
    integers the values it may have, 0 to `values` - 1. `next`: of a state of a streaming model, the output that is its
    value in the next step. `value`: the only one that it ever has (a sampling rate, a threshold), with which every
    sample is fed; with `fold` the float graph has it as a constant instead of the input."""

    shape: tuple[Annotated[int, Field(gt=0)] | str, ...] = Field(max_length=16)
    dtype: DTYPE = "float32"
    values: Annotated[int, Field(gt=0)] = 2
    next: str | None = None
    value: bool | int | float | None = None
    fold: bool = False

    def filled(self, sizes: Mapping[str, int]) -> NDArray[Any]:
        """An array of `value` everywhere. `sizes`: of dynamic axes by name, else 1."""
        shape = [sizes.get(size, 1) if isinstance(size, str) else size for size in self.shape]
        return np.full(shape, self.value, self.dtype)

    @model_serializer(mode="wrap")
    def _plain(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what most inputs do not have, so that it is in no key of theirs."""
        unset = {name for name, rare in (("value", self.value is not None), ("fold", self.fold)) if not rare}
        return {name: item for name, item in dump(self).items() if name not in unset}

    @model_validator(mode="after")
    def _fits(self) -> InputSpec:
        values = math.prod(_ASSUMED if isinstance(size, str) else size for size in self.shape[1:])
        if values > MOST_VALUES:
            raise ValueError(f"a sample would have {values:,} values; at most {MOST_VALUES:,} fit")
        if np.dtype(self.dtype).kind in "iu" and self.values - 1 > np.iinfo(self.dtype).max:
            raise ValueError(f"{self.dtype} has no value {self.values - 1}")
        if self.value is None and self.fold:
            raise ValueError("fold needs a value")
        if self.fold and any(isinstance(size, str) for size in self.shape):
            raise ValueError("a constant needs a number as the size of each axis, or none at all")
        if self.value is not None and self.next is not None:
            raise ValueError("an input with a value is no state: it has no next one")
        if self.value is not None and not _holds(self.dtype, self.value):
            raise ValueError(f"{self.dtype} has no value {self.value}")
        return self


def _holds(dtype: str, value: float) -> bool:
    """Whether a dtype has a number, floats as nearly as they can."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return abs(value) <= float(np.finfo(kind).max)
    whole = float(value).is_integer()
    return whole and (value in (0, 1) if kind.kind == "b" else np.iinfo(kind).min <= value <= np.iinfo(kind).max)


def given(specs: Mapping[str, InputSpec]) -> dict[str, InputSpec]:
    """The inputs that samples have values of."""
    return {name: spec for name, spec in specs.items() if spec.value is None}


class DecoderSpec(StrictModel):
    """Of a model with an encoder and a decoder: the token that every text starts with, the one that fills up shorter
    texts, and the most tokens that the decoder takes (None: not bounded)."""

    start: int
    pad: int | None = None
    longest: int | None = None

    def most(self, max_length: int) -> int:
        """How many tokens it gets where texts are cut to `max_length`."""
        return min(max_length, self.longest or max_length)


class LanguageSpec(StrictModel):
    """A language model as far as one must know it to run its graph.

    Attributes:
        layers: How many layers keep keys and values of the tokens before, each with ...
        heads: ... so many heads of ...
        size: ... so many values.
        queries: Heads of queries.
        hidden: Values that stand for a token between layers.
        vocabulary: Tokens that there are.
        longest: The most tokens of a text.
        begin: The token before a text; None if there is none.
        ends: The tokens that end one.
        pad: The token that fills up shorter texts of a batch and stands in none; None if there is none.
        cache: The dtype of keys and values in the graph.
    """

    layers: Annotated[int, Field(gt=0, le=4096)]
    heads: Annotated[int, Field(gt=0)]
    size: Annotated[int, Field(gt=0)]
    queries: Annotated[int, Field(gt=0)]
    hidden: Annotated[int, Field(gt=0)]
    vocabulary: Annotated[int, Field(gt=0)]
    longest: Annotated[int, Field(gt=1)]
    begin: int | None = None
    ends: tuple[int, ...] = ()
    pad: int | None = None
    cache: Literal["float32", "float16", "int8"] = Field(default="float32", exclude_if=lambda kind: kind == "float32")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The graph's inputs with the keys and values so far, as transformers and onnxruntime-genai name them."""
        return tuple(PAST.format(layer, kind) for layer in range(self.layers) for kind in ("key", "value"))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The graph's outputs with the keys and values of all tokens, in the order of `inputs`."""
        return tuple(PRESENT.format(layer, kind) for layer in range(self.layers) for kind in ("key", "value"))

    def within(self, context: int) -> LanguageSpec:
        """The model with texts of at most `context` tokens."""
        return self.model_copy(update={"longest": min(self.longest, context)})

    def stored(self, bits: int) -> LanguageSpec:
        """The model with keys and values of so many bits."""
        return self.model_copy(update={"cache": CACHES[bits]})

    def empty(self, batch: int = 1) -> dict[str, NDArray[Any]]:
        """The inputs before the first token: [batch, heads, 0, size], of the dtype `cache`."""
        return {name: np.zeros((batch, self.heads, 0, self.size), self.cache) for name in self.inputs}


CACHES = MappingProxyType({32: "float32", 16: "float16", 8: "int8"})
"""The dtype of keys and values by their bits in a scheme."""
PAST, PRESENT = "past_key_values.{}.{}", "present.{}.{}"


class ModelSpec(StrictModel):
    """A vetted model source, passed whole through the stages.

    `digest` covers its files, `inputs` what its graph takes where no Hugging Face config says so. `family`: what it
    puts out (a name in `tasks.registry.OUTPUTS`), as far as that is known before its graph is; `output`: the name of
    the output that is judged; `data`: the kind of its samples; `auto_class`: the transformers class that loads it.
    `preprocessing`: a recipe's image processing; `labels`: class names by index; `head`: how outputs are decoded.
    `decoder`: of a model with an encoder and a decoder; `language`: of a language model; `coded`: whether its weights
    are codes already. `text_length`: the tokens that every text is padded to, where shapes are fixed.
    Outside the key: `path`, its folder; `entry`, the factory, ONNX or GGUF file; `tokenizer`, the folder of a tokenizer
    in place of its own; `stamps`, of files with weights, by which they are known to be those that were digested.
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
    decoder: DecoderSpec | None = Field(default=None, exclude_if=lambda decoder: decoder is None)
    language: LanguageSpec | None = Field(default=None, exclude_if=lambda language: language is None)
    coded: bool = Field(default=False, exclude_if=lambda coded: not coded)
    text_length: int | None = Field(default=None, exclude_if=lambda length: length is None)
    path: Path
    entry: str = ""
    tokenizer: Path | None = None
    stamps: dict[str, tuple[int, int, int]] = Field(default={})

    def identity(self) -> dict[str, Json]:
        """What of it can change a result: no place on this machine."""
        return self.model_dump(mode="json", exclude=_PLACES)

    def after_passes(self, said: Mapping[str, Json]) -> ModelSpec:
        """The model as its passes left it when it was traced. `said`: the metadata of that stage, which has the sizes
        of a language model's cache where they have changed."""
        if "language" not in said:
            return self
        return self.model_copy(update={"language": LanguageSpec.model_validate(said["language"])})

    @property
    def tokenizer_folder(self) -> Path:
        return self.tokenizer or self.path
