"""ONNX's types of tensors, against onnx_ir's account of them."""

import onnx_ir as ir
import pytest

from pipeline.graph.dtypes import bits_of, dtype_of, holds_numbers, is_floating_point

UNSIZED = (ir.DataType.UNDEFINED, ir.DataType.STRING)


@pytest.mark.parametrize("kind", list(ir.DataType), ids=lambda kind: kind.name)
def test_every_type(kind: ir.DataType) -> None:
    assert bits_of(int(kind)) == (0 if kind in UNSIZED else kind.bitwidth)
    assert is_floating_point(int(kind)) == kind.is_floating_point()
    assert holds_numbers(int(kind)) == (kind not in (*UNSIZED, ir.DataType.BOOL))
    if kind is not ir.DataType.UNDEFINED:
        assert dtype_of(int(kind)) == kind.numpy()
