"""Which neighbouring weights overflow 16 bits, counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pipeline.checks.saturation import joined, overflow
from pipeline.core.report_types import Overflow, SaturatingLayer

CODES = np.array([[64, 65, -64, 127], [64, 64, -65, -127], [1, 127, 0, 127]], np.int8)
"""Three summed rows: one pair in each of the four columns, 64 + 64 = 128 and 127 - 127 within what 16 bits hold,
65 + 64 and -64 - 65 beyond: 255 * 129 = 32,895."""


def model(op_type: str, codes: np.ndarray, place: int = 1, **attributes: int) -> onnx.ModelProto:  # type: ignore[type-arg]
    inputs = [f"in{number}" for number in range(place)] + ["w"]
    node = helper.make_node(op_type, inputs, ["y"], name="product", **attributes)
    return helper.make_model(helper.make_graph([node], "g", [], [], [numpy_helper.from_array(codes, "w")]))


@pytest.mark.parametrize(
    ("op_type", "place"), [("MatMulInteger", 1), ("DynamicQuantizeMatMul", 1), ("QLinearMatMul", 3)]
)
def test_pairs_along_the_summed_axis(op_type: str, place: int) -> None:
    found = overflow(model(op_type, CODES, place), Path())
    assert (found.pairs, found.overflowing) == (4, 2)
    assert found.layers == (SaturatingLayer(name="product", op_type=op_type, share=0.5),)


def test_weights_that_lie_the_other_way_round() -> None:
    assert overflow(model("QGemm", np.ascontiguousarray(CODES.T), 3, transB=1), Path()).overflowing == 2


def test_products_in_the_body_of_an_if_count_too() -> None:
    """With weights that stand in the body, and around it."""
    inner = model("MatMulInteger", CODES).graph
    outer = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "around"], ["z"], name="other")],
        "else",
        [],
        [helper.make_tensor_value_info("z", 6, None)],
    )
    inner.output.append(helper.make_tensor_value_info("y", 6, None))
    branch = helper.make_node("If", ["chosen"], ["out"], then_branch=inner, else_branch=outer)
    whole = helper.make_graph([branch], "g", [], [], [numpy_helper.from_array(CODES, "around")])
    assert overflow(helper.make_model(whole), Path()).overflowing == 4


def test_seven_bits_never_overflow() -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(-64, 65, (64, 32)).astype(np.int8)
    assert overflow(model("MatMulInteger", codes), Path()) == Overflow(pairs=32 * 32, overflowing=0)


def test_weights_of_convolutions_are_summed_over_places_and_then_channels() -> None:
    """[outputs, channels, height, width]: neighbours are channels of one place."""
    codes = np.array([[[[100, -100]], [[100, -100]]]], np.int8)
    assert overflow(model("QLinearConv", codes, 3), Path()).overflowing == 2
    apart = np.array([[[[100, 100]], [[-100, -100]]]], np.int8)
    assert overflow(model("QLinearConv", apart, 3), Path()) == Overflow(pairs=2, overflowing=0)


def test_a_convolution_of_the_only_channel_sums_over_places() -> None:
    assert overflow(model("QLinearConv", np.full((3, 1, 3, 3), 127, np.int8), 3), Path()).overflowing == 3 * 4


def test_other_kernels_do_not_overflow() -> None:
    """Of uint8 weights, and of convolutions of each channel alone."""
    assert overflow(model("MatMulInteger", CODES.view(np.uint8)), Path()).pairs == 0
    assert overflow(model("QLinearConv", np.full((3, 1, 3, 3), 127, np.int8), 3, group=3), Path()).pairs == 0
    assert overflow(model("Add", CODES), Path()).pairs == 0


def test_several_graphs_count_together() -> None:
    one, other = overflow(model("MatMulInteger", CODES), Path()), Overflow(pairs=6, overflowing=0)
    assert joined([one, other]) == Overflow(pairs=10, overflowing=2, layers=one.layers)
