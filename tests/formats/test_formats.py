"""Every format against hand-made tables, and what it decodes against what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from pipeline.core.types import Scheme
from pipeline.formats import NUMBER_FORMATS
from pipeline.formats.format import Entry, Known, TensorClass

SCHEME = Scheme(name="t", block_size=16, embedding_block_size=16, scale_bits=16)
STATIC = Scheme(name="s", weights=8, activations="static")
BLOCKS = ("int8-block", "int4-block", "int2-block")
TAKEN: list[tuple[str, TensorClass]] = [
    *((name, "linear") for name in ("fp16", "int8-channel", "int8-tensor", *BLOCKS, "int4-widened")),
    *((name, "table") for name in ("fp16", "int8-channel", *BLOCKS)),
]


def weight_of(op: TensorClass) -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(40, 24)).astype(np.float32)


def run(op: TensorClass, entry: Entry, arrays: dict[str, NDArray[Any]], weight: NDArray[np.float32]) -> Any:
    """What the emitted operators give for the unit vectors, or for all rows."""
    rows = len(weight)
    constant = ir.val("W", const_value=ir.tensor(weight, name="W"))
    x = ir.val("x", dtype=ir.DataType.FLOAT if op == "linear" else ir.DataType.INT64, shape=ir.Shape([rows]))
    if op == "linear":
        x.shape = ir.Shape([rows, rows])
    node = ir.node("MatMul", [x, constant], name="n") if op == "linear" else ir.node("Gather", [constant, x], name="n")
    (y,) = node.outputs
    y.name, y.dtype, y.shape = "y", ir.DataType.FLOAT, ir.Shape([rows, weight.shape[1]])
    graph = ir.Graph([x], [y], nodes=[node], initializers=[constant], opset_imports={"": 23, "com.microsoft": 1})
    NUMBER_FORMATS.get(entry.format).emit(node, entry, arrays, {})
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.eye(rows, dtype=np.float32) if op == "linear" else np.arange(rows)})[0]


@pytest.mark.parametrize(
    ("name", "op", "zero_points"),
    [(*taken, False) for taken in TAKEN] + [(*taken, True) for taken in TAKEN if taken[0] in BLOCKS],
)
def test_onnx_runtime_reads_what_decode_gives(name: str, op: TensorClass, zero_points: bool) -> None:
    """The unit vectors are exact in 8 bits: [0, 1] has the codes 0 and 255."""
    scheme = SCHEME.model_copy(update={"symmetric": not zero_points})
    form, weight = NUMBER_FORMATS.get(name)(scheme), weight_of(op) + np.float32(zero_points)
    encoded = form.encode(op, weight, Known())
    entry = Entry(
        node="n",
        weight="W",
        op=op,
        format=name,
        shape=weight.shape,
        parameters=encoded.parameters,
        input=form.input_parameters(None),
    )
    arrays = {f"W.{part}": array for part, array in encoded.arrays.items()}
    decoded = form.decode(op, encoded, weight.shape)
    atol = 2e-3 if op == "table" and name in BLOCKS else 1e-5  # whose float16 scales give float16 rows
    np.testing.assert_allclose(run(op, entry, arrays, weight), decoded, atol=atol)


@pytest.mark.parametrize(("name", "op"), TAKEN)
def test_rounding_is_decoding_of_codes_and_counts_their_bytes(name: str, op: TensorClass) -> None:
    form, weight = NUMBER_FORMATS.get(name)(SCHEME), weight_of(op)
    encoded = form.encode(op, weight, Known())
    values, size = form.round(op, weight)
    np.testing.assert_array_equal(values, form.decode(op, encoded, weight.shape))
    assert values.shape == weight.shape
    assert size == sum(array.nbytes for array in encoded.arrays.values()) == encoded.bytes
    noise = np.square(values - weight).sum() / np.square(weight).sum()
    assert noise < {16: 1e-6, 8: 1e-3, 4: 2e-2, 2: 0.3}[form.code_bits]


@pytest.mark.parametrize(
    ("name", "op", "expected", "size"),
    [
        # neighbours of one sign take 127 steps: of 1.5 and of 2
        ("int8-channel", "linear", [[125 * 1.5 / 127, 95 * 2 / 127], [-1.5, 32 * 2 / 127]], 4 + 8),
        # rows take all 8 bits, each with its own scale
        ("int8-channel", "table", [[1.5 * 125 / 127, 1.5], [-1.5, 1.5 * 42 / 127]], 4 + 8),
        ("int8-tensor", "linear", [[94 * 2 / 127, 95 * 2 / 127], [-95 * 2 / 127, 32 * 2 / 127]], 4 + 4),
        ("fp16", "linear", [[1.4755859375, 1.5], [-1.5, 0.5]], 8),
    ],
)
def test_hand_made_weights(name: str, op: TensorClass, expected: list[list[float]], size: int) -> None:
    weight = np.array([[1.4756, 1.5], [-1.5, 0.5]], np.float32)
    values, stored = NUMBER_FORMATS.get(name)(SCHEME).round(op, weight)
    np.testing.assert_allclose(values, expected, atol=1e-4)
    assert stored == size


def test_four_bit_blocks_keep_multiples_of_their_scale() -> None:
    """The value of largest magnitude gets the code -8, whatever its sign: steps of 0.1875 in both columns."""
    weight = np.array([[-1.5, 1.5], [0.5625, -0.75]], np.float32)
    values, stored = NUMBER_FORMATS.get("int4-block")(SCHEME).round("linear", weight)
    np.testing.assert_array_equal(values, weight)
    assert stored == 2 * (8 + 2)  # a block of 16 codes and a scale for each column


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("fp16", {}),
        (
            "int8-channel",
            {
                "conv": "ONNX Runtime's convolution with ranges found at run time (ConvInteger) is slower than float: "
                "use w8a8"
            },
        ),
        ("int4-block", {"conv": "ONNX Runtime has no 4-bit convolution: use w8a8"}),
        (
            "int4-widened",
            {
                "conv": "ONNX Runtime has no 4-bit convolution: use w8a8",
                "table": "rows are looked up and not multiplied, so that widening them gains nothing: use int4-block",
            },
        ),
        (
            "fp32",
            {
                "linear": "the scheme t keeps weights in float",
                "table": "the scheme t keeps embeddings in float",
                "conv": "the scheme t keeps weights in float",
            },
        ),
    ],
)
def test_what_a_format_does_not_take(name: str, refused: dict[TensorClass, str]) -> None:
    form = NUMBER_FORMATS.get(name)(SCHEME)
    classes: tuple[TensorClass, ...] = ("linear", "table", "conv")
    assert {op: form.refuses(op) for op in classes if form.refuses(op)} == refused
    assert all(form.bits(op, (8, 8)) == 32 for op in refused)


def test_calibrated_ranges_let_convolutions_run_in_integers() -> None:
    assert NUMBER_FORMATS.get("int8-channel")(STATIC).refuses("conv") == ""
    assert NUMBER_FORMATS.get("int8-tensor")(STATIC).refuses("table") == (
        "one scale for all rows of a table is too coarse: use int8-channel"
    )


@pytest.mark.parametrize(
    ("name", "op", "bits"),
    [
        ("int8-channel", "linear", 8),
        ("int8-block", "linear", 8 + 1),
        ("int8-block", "table", 8 + 1),
        ("int4-block", "table", 4 + 1),
        ("int2-block", "linear", 2 + 1),
        ("int4-widened", "linear", 4 + 1),
        ("fp16", "conv", 16),
    ],
)
def test_bits_of_a_value_with_its_share_of_scales(name: str, op: TensorClass, bits: float) -> None:
    assert NUMBER_FORMATS.get(name)(SCHEME).bits(op, (64, 64)) == bits


@pytest.mark.parametrize(
    ("name", "bits"), [("int8-block", 8 + 1.5), ("int4-block", 4 + 1.25), ("int2-block", 2 + 1.125)]
)
def test_zero_points_have_the_bits_of_a_code(name: str, bits: float) -> None:
    form = NUMBER_FORMATS.get(name)(SCHEME.model_copy(update={"symmetric": False}))
    assert form.bits("linear", (64, 64)) == bits
    _, stored = form.round("linear", np.ones((64, 64), np.float32))
    assert stored == 64 * 64 * bits / 8


@pytest.mark.parametrize("name", list(NUMBER_FORMATS))
def test_every_format_says_its_name_and_meaning(name: str) -> None:
    form = NUMBER_FORMATS.get(name)
    assert form.name == name
    assert form.meaning
    assert form(STATIC).words("linear")
