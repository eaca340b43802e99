"""Codes of a checkpoint are found again in a graph by the rows that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from pipeline.core.errors import StageError
from pipeline.core.types import Scheme
from pipeline.formats.format import Layer, TensorClass
from pipeline.formats.scheme import SchemeFormats
from pipeline.numerics.coded import Coded
from pipeline.quantize.choice import Choices
from pipeline.quantize.given import GivenCodes, require_exact

K = 64


def coded(rows: int, seed: int, group: int = 32) -> Coded:
    draw = np.random.default_rng(seed)
    groups = (rows, K // group)
    return Coded(
        draw.integers(0, 16, (rows, K), dtype=np.uint8),
        draw.uniform(0.1, 1, groups).astype(np.float32),
        np.full(groups, 8, np.uint8),
        4,
        group,
    )


def layer(rows: NDArray[np.float32], op: TensorClass = "linear") -> Layer:
    return Layer(op, ir.node("MatMul", [], name="product"), "x", "W", rows.T if op == "linear" else rows)


def codes_of(**parts: Coded) -> dict[str, Callable[[], Coded]]:
    return {name: (lambda part=part: part) for name, part in parts.items()}


def test_rows_of_several_weights_in_another_order() -> None:
    q, k = coded(4, 1), coded(2, 2)
    rows = np.concatenate([q.values()[[2, 0, 3, 1]], k.values()])
    given = GivenCodes(codes_of(q=q, k=k))
    found = given.of(layer(rows))
    assert found is not None
    np.testing.assert_array_equal(found.codes, np.concatenate([q.codes[[2, 0, 3, 1]], k.codes]))
    np.testing.assert_array_equal(found.values(), rows)
    given.require_seen([])


def test_of_equal_rows_those_of_the_same_weight_are_taken() -> None:
    """A row of zeros may stand in both; their groups differ."""
    first, second = coded(3, 1, group=16), coded(3, 2)
    for part in (first, second):
        part.codes[0] = 8
    found = GivenCodes(codes_of(first=first, second=second)).of(layer(second.values()))
    assert found is not None
    assert found.group == 32


@pytest.mark.parametrize("op", ["linear", "table"])
def test_weights_in_float_have_none(op: TensorClass) -> None:
    rows = np.random.default_rng(0).normal(size=(5, K)).astype(np.float32)
    assert GivenCodes(codes_of(q=coded(4, 1))).of(layer(rows, op)) is None
    assert GivenCodes({}).of(layer(rows, op)) is None


@pytest.mark.parametrize("other", [coded(2, 3, group=16).values(), np.ones((2, K), np.float32)])
def test_one_product_of_several_forms_is_refused(other: NDArray[np.float32]) -> None:
    q = coded(4, 1)
    given = GivenCodes(codes_of(q=q, v=coded(2, 3, group=16)))
    with pytest.raises(StageError) as caught:
        given.of(layer(np.concatenate([q.values(), other])))
    assert caught.value.message.endswith(
        ", which the checkpoint stores in different forms, or only some of them in codes: they cannot be one product."
    )


def test_every_weight_must_be_in_the_graph() -> None:
    q, k = coded(4, 1), coded(2, 2)
    given = GivenCodes(codes_of(q=q, k=k))
    given.of(layer(q.values()))
    with pytest.raises(StageError) as caught:
        given.require_seen([np.ones((2, 2), np.float32)])
    assert caught.value.message == (
        "The graph has no product or table with the values of 'k', which the checkpoint has in codes (1 of 2 such "
        "weights): it would be rounded a second time."
    )
    given.require_seen([k.values().T])  # left in float, as a user asked


def test_the_stored_form_must_stand_for_the_weight() -> None:
    rows = coded(4, 1).values()
    require_exact(layer(rows), rows.T)
    with pytest.raises(StageError) as caught:
        require_exact(layer(rows), rows.T + np.float32(1e-6))
    assert caught.value.message == "The codes that the checkpoint has for 'product' do not stand for its weight."


@pytest.mark.parametrize(("bits", "level"), [(2, 4), (4, 0), (8, 0)])
def test_products_of_2_bits_take_8_bit_inputs(bits: int, level: int) -> None:
    """Whatever the scheme: others would be 100 times slower."""
    part = replace(coded(4, 1), codes=np.ones((4, K), np.uint8), bits=bits)  # type: ignore[arg-type]
    choices = Choices(SchemeFormats(Scheme(name="t", weights=4)), GivenCodes(codes_of(q=part)), {})
    choice = choices.of(layer(part.values()))
    assert (choice.given is None, choice.form.code_bits, choice.plain) == (False, bits, True)
    assert choice.form.integer_products == (level == 4)
