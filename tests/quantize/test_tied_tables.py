"""A table that the output's product multiplies with too is stored once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from pipeline.config.target import Runtime
from pipeline.core.artifact import Artifact
from pipeline.core.types import Scheme
from pipeline.numerics.blocks import Grid, dequantize_blocks, unpack_codes
from pipeline.quantize import quantize
from pipeline.quantize import write as writing
from pipeline.runtime.session import make_session

ROWS = 96
W4 = Scheme(name="t", weights=4, embeddings=4, block_size=32, embedding_block_size=64)

ASYMMETRIC_2 = {"symmetric": False, "weights": 2, "embeddings": 2, "block_size": 64}


@pytest.fixture
def tied(make_graph: Callable[..., Artifact]) -> Callable[..., Artifact]:
    """y = table[ids] @ table^T, with some columns, and ids of some rank."""

    def make(columns: int = 64, rank: int = 2, spoil: float = 0.0) -> Artifact:
        table = np.random.default_rng(0).normal(size=(ROWS, columns)).astype(np.float32)
        other = np.ascontiguousarray(table.T)
        other[0, 0] += spoil
        nodes = [
            helper.make_node("Gather", ["table", "ids"], ["rows"], name="look-up"),
            helper.make_node("MatMul", ["rows", "head"], ["y"], name="product"),
        ]
        axes = [f"axis{number}" for number in range(rank)]
        return make_graph(
            nodes, {"table": table, "head": other}, {"ids": axes}, {"y": [*axes, ROWS], "rows": [*axes, columns]}
        )

    return make


def written(graph: Artifact, scheme: Scheme, run_stage: Callable[..., Artifact]) -> Artifact:
    plan = run_stage(quantize.run, scheme, graph=graph)
    return run_stage(writing.run, scheme, graph=graph, plan=plan)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "scheme",
    [
        W4.model_copy(update=change)
        for change in (
            *({}, {"scale_bits": 16}, {"symmetric": False}, ASYMMETRIC_2),
            {"weights": 8},
            {"weights": 8, "embeddings": 8, "symmetric": False},
            {"head": 8, "embeddings": 8, "rounding": "gptq"},
        )
    ],
)
def test_both_read_the_codes_of_the_product(
    rank: int, scheme: Scheme, tied: Callable[..., Artifact], run_stage: Callable[..., Artifact]
) -> None:
    model = written(tied(rank=rank), scheme, run_stage).path / "model.onnx"
    constants: dict[str, Any] = {
        name: value.const_value.numpy()
        for name, value in ir.load(model).graph.initializers.items()
        if value.const_value is not None
    }
    stored = sorted(name for name, array in constants.items() if array.dtype != np.int64 and array.size > 4)
    assert stored == ["head.codes", "head.scales", *([] if scheme.symmetric else ["head.zero_points"])]
    bits = scheme.head or scheme.weights
    codes, scales = unpack_codes(constants["head.codes"], bits), constants["head.scales"].astype(np.float32)
    zero = np.full(scales.shape, 1 << (bits - 1), np.uint8)
    if not scheme.symmetric:
        zero = unpack_codes(constants["head.zero_points"], bits)[:, : scales.shape[1]]
    table = dequantize_blocks(codes, Grid(scales, zero), 64)
    ids = np.random.default_rng(1).integers(0, ROWS, (2, 3, 4)[:rank])
    rows, y = make_session(model, Runtime()).run(["rows", "y"], {"ids": ids})
    np.testing.assert_allclose(rows, table[ids], atol=1e-3 if scheme.scale_bits == 16 else 1e-6)
    np.testing.assert_allclose(y, rows @ table.T, atol=1e-2)


@pytest.mark.parametrize(
    ("columns", "spoil", "scheme", "why"),
    [
        (80, 0.0, W4, "rows that fill no blocks"),
        (64, 1e-3, W4, "another weight"),
        (64, 0.0, W4.model_copy(update={"embeddings": 8}), "a table of 8 bits"),
        (64, 0.0, W4.model_copy(update={"head": 2, "block_size": 64}), "a product of 2 bits"),
        (64, 0.0, W4.model_copy(update={"nodes_to_exclude": ("product",)}), "a product that stays in float"),
    ],
)
def test_a_table_is_stored_by_itself_where_it_must_be(
    columns: int,
    spoil: float,
    scheme: Scheme,
    why: str,
    tied: Callable[..., Artifact],
    run_stage: Callable[..., Artifact],
) -> None:
    graph = tied(columns, spoil=spoil)
    model = written(graph, scheme, run_stage).path / "model.onnx"
    names = ir.load(model).graph.initializers
    assert "table.codes" in names, why
    ids = np.arange(ROWS).reshape(2, -1)
    rows, y = make_session(model, Runtime()).run(["rows", "y"], {"ids": ids})
    exact = make_session(graph.path / "model.onnx", Runtime()).run(["rows", "y"], {"ids": ids})
    assert np.abs(rows - exact[0]).max() < 0.8
    assert np.corrcoef(y.ravel(), exact[1].ravel())[0, 1] > (0.95 if scheme.head == 2 else 0.97)
