"""What a number format answers for, and the records that it takes and gives."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.core.types import Json, Scheme, StrictModel
from pipeline.graph.edit import add_constant, drop_unused
from pipeline.graph.onnx_ir import ir
from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.blocks import BlockFormat, Grid
from pipeline.numerics.coded import Coded
from pipeline.numerics.gptq import Curvature

TensorClass = Literal["linear", "table", "conv", "lstm", "other"]
"""What a weight is to the node that reads it: the right factor of a product [K, N], a table whose rows are looked up
[rows, columns], a convolution's kernel [outputs, inputs / groups, *kernel], one of the two weights [directions, 4 *
hidden, inputs] of an LSTM that is wide enough for integers, or what no integer kernel takes: narrow and other recurrent
layers, transposed convolutions, what branches and loops read."""

OPERATORS: dict[TensorClass, tuple[str, int]] = {"linear": ("MatMul", 1), "table": ("Gather", 0), "conv": ("Conv", 1)}
"""The operator that reads a weight of these classes, and which of its inputs that is; others have several."""

NO_KERNEL = "ONNX Runtime multiplies it in float only, or has a kernel of its own for it: use int8-stored"
"""Why formats of products do not take other weights."""

BY_CURVATURE = ("gptq", "descent")
"""Ways of `Scheme.rounding` that ask for the curvature of a product's inputs."""

Arrays = dict[str, NDArray[Any]]
Shared: TypeAlias = "dict[str, list[ir.Value]]"
"""Values that several nodes of one graph read, by a key of the writer's: a rounded activation, widened weights."""


@dataclass(frozen=True)
class Layer:
    """A node that reads a constant weight (float32) as the input of the number `place`. `stored`: the weight, or the
    graph's tensor, which may be in no memory: then `weight` reads all of it whenever it is asked for."""

    op: TensorClass
    node: ir.Node
    activation: str
    weight_name: str
    stored: Float | ir.TensorProtocol
    place: int = 1

    @property
    def weight(self) -> Float:
        return self.stored if isinstance(self.stored, np.ndarray) else self.stored.numpy()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(int, self.stored.shape))

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """What they take in memory."""
        return 4 * self.size


@dataclass(frozen=True)
class Known:
    """What is known of a weight beside its values. `curvature`: of the inputs of its products on calibration samples,
    computed when it is asked for; None where nothing was calibrated. `floor`: the smallest scales that leave room for
    a bias (`numerics.affine.bias_floor`), which broadcast against the weight. `given`: the codes that the checkpoint
    has of it, in rows of outputs; they are stored as they are. `learned`: of a product's weight [K, N], the codes uint8
    [N, blocks, size] and the grid [N, blocks] that training decided. `noted`: asked for after encoding, what is to be
    kept beside the weight's arrays."""

    curvature: Callable[[], Curvature | None] = lambda: None
    floor: Float | None = None
    given: Coded | None = None
    learned: tuple[Bytes, Grid] | None = None
    noted: Callable[[], Json] = lambda: None


@dataclass(frozen=True)
class Encoded:
    """`arrays` by part (`codes`, `scales`, ...), and the parameters that a reader of them needs."""

    arrays: Arrays
    parameters: dict[str, Json] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


class Entry(StrictModel):
    """One node of the quantization plan: `format` stores its weight, of `shape`, in the arrays `<weight>.<part>`.
    `parameters`, and `input` for the node's input, are the format's own. `stored_as`: of a table, the weight of the
    product that multiplies with it too, whose arrays are this one's. `given`: whether the checkpoint has the codes."""

    node: str
    weight: str
    op: TensorClass
    format: str
    shape: tuple[int, ...]
    parameters: dict[str, Json] = Field(default={})
    input: dict[str, Json] = Field(default={})
    stored_as: str = Field(default="", exclude_if=lambda name: not name)
    given: bool = Field(default=False, exclude_if=lambda given: not given)


class NumberFormat(ABC):
    """One way to store weights and to compute with them. Made from a scheme, whose settings it keeps.

    A format must answer the abstract methods. The others have defaults that hold for a format which computes in float
    and needs no calibration.
    """

    name: ClassVar[str]
    meaning: ClassVar[str]
    code_bits: ClassVar[int]
    """Bits of a stored code, scales not counted."""
    integer_schemes: ClassVar[str] = "w8a8-dynamic or w8a8"
    """Schemes with INT8 arithmetic to name where this format's products are too slow."""

    @abstractmethod
    def __init__(self, scheme: Scheme) -> None: ...

    @abstractmethod
    def refuses(self, op: TensorClass) -> str:
        """Why weights of this class stay in float; empty if the format takes them."""

    def leaves(self, op: TensorClass, weight: Float) -> str:
        """Why this very weight stays in float; empty if it need not."""
        return self.refuses(op)

    @abstractmethod
    def encode(self, op: TensorClass, weight: Float, known: Known) -> Encoded:
        """The stored form of `weight`, float32 in the layout of its class."""

    @abstractmethod
    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        """The float32 weight of `shape` that `encoded` stands for."""

    @staticmethod
    @abstractmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        """Replace `node` of a float graph by operators that read `arrays`, which has those of the whole plan."""

    @abstractmethod
    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        """Bits of a stored value, with its share of the scales of blocks; 32 where the weight stays in float."""

    def loaded_bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        """Bits of a value once ONNX Runtime has loaded it, which are read for each use."""
        return self.bits(op, dims)

    @abstractmethod
    def words(self, op: TensorClass) -> str:
        """How weights of this class are stored, for the report."""

    def finer(self, op: TensorClass) -> str:
        """What would keep more accuracy of weights of this class, as a recipe says it; empty if nothing is known."""
        return ""

    def round(self, op: TensorClass, weight: Float) -> tuple[Float, int]:
        """What is left of `weight` once it is stored, each value at its nearest code, and the bytes that takes."""
        encoded = self.encode(op, weight, Known())
        return self.decode(op, encoded, weight.shape), encoded.bytes

    def lends_rows(self, table: NumberFormat, shape: tuple[int, ...]) -> bool:
        """Whether the rows of a table of `shape`, which the scheme wants in the format `table`, can be read from what
        this format stores of the product that multiplies with the same values, so that they need not be stored
        twice."""
        return False

    def input_parameters(self, ends: NDArray[np.float32] | None) -> dict[str, Json]:
        """How the input of one product is rounded. `ends`: its calibrated (low, high), None without calibration."""
        return {}

    @property
    def integer_products(self) -> bool:
        """Whether products are computed on inputs rounded to 8 bits."""
        return False

    @property
    def ranges(self) -> Literal["none", "run time", "calibrated"]:
        """Where the ranges of rounded inputs come from."""
        return "none"

    @property
    def uses_curvature(self) -> bool:
        """Whether `encode` asks for the curvature of a weight's inputs."""
        return False

    @property
    def objection(self) -> tuple[str, str] | None:
        """What is wrong with the scheme's settings for products in this format (the predicate of a sentence about the
        scheme), and what to do; None if nothing is."""
        return None

    @property
    def learns(self) -> bool:
        """Whether the codes and scales of products are learned (`quantize.learned`), from what `begin` gives."""
        return False

    def begin(self, weight: Float) -> tuple[BlockFormat, Grid]:
        """Of a product's weight [K, N] that is learned: how it is stored, and the grid [N, blocks] to begin with."""
        raise NotImplementedError

    @property
    def has_smaller_blocks(self) -> bool:
        """Whether weights could share a scale among fewer values than now."""
        return False

    def details(self) -> dict[str, str]:
        """What else the report says of products in this format, by subject."""
        return {}

    def cpu_note(self, vnni: bool) -> str:
        """What a reader must know before trusting a score across CPUs; empty if nothing. `vnni`: whether this CPU adds
        products of 8 bits in 32."""
        return ""


def constants(node: ir.Node, weight: str, arrays: Arrays, *parts: str) -> list[ir.Value]:
    """The arrays `<weight>.<part>` as constants, each once, of the graph that has the weight: the one of `node`, or one
    around it."""
    owner = next((read.graph for read in node.inputs if read is not None and read.name == weight), None)
    graph = owner or node.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101
    return [add_constant(graph, f"{weight}.{part}", arrays[f"{weight}.{part}"]) for part in parts]


def constant_of(node: ir.Node, name: str, values: list[int]) -> ir.Value:
    """A constant int64 [values] in the graph of `node`."""
    assert isinstance(node.graph, ir.Graph)  # noqa: S101
    return add_constant(node.graph, name, np.array(values, np.int64))


def read_instead(node: ir.Node, weight: str, value: ir.Value) -> None:
    """Let a node read `value` in the place of its constant `weight`, which goes if nobody else reads it."""
    place = next(place for place, read in enumerate(node.inputs) if read is not None and read.name == weight)
    old = node.inputs[place]
    assert old is not None  # noqa: S101  # it has a name
    owner = old.graph
    node.replace_input_with(place, value)
    if isinstance(owner, ir.Graph):
        drop_unused(owner, [old])
