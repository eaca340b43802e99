"""Codes that are packed while they are rounded."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.formats import block_rounding
from pipeline.formats.block_rounding import packed_rows, rounded_rows
from pipeline.formats.format import Known
from pipeline.numerics.blocks import Bits, BlockFormat, pack_codes


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("search", ["minmax", "mse"])
def test_packed_codes_are_the_codes_packed(monkeypatch: pytest.MonkeyPatch, bits: Bits, search) -> None:
    monkeypatch.setattr(block_rounding, "_TOGETHER", 200)  # three rows
    rows = np.random.default_rng(0).standard_normal((10, 60)).astype(np.float32)  # a block is not full
    form = BlockFormat(16, bits, symmetric=False)
    codes, grid = rounded_rows(rows, form, Known(), "nearest", search)
    packed, of_packed = packed_rows(rows, form, Known(), "nearest", search)
    assert codes.shape == (10, 4, 16)
    assert np.array_equal(packed, pack_codes(codes, bits))
    assert np.array_equal(grid.scale, of_packed.scale) and np.array_equal(grid.zero, of_packed.zero)
