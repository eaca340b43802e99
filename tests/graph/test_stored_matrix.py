"""Matrices read block by block from safetensors files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.core.errors import StageError
from pipeline.graph import stored_matrix
from pipeline.graph.stored_matrix import StoredMatrix, read_values
from pipeline.source.weights import stored_tensors

VALUES = torch.tensor([[1.0, -2.0, 0.5], [3.0, 4.0, -0.25]])


def saved(folder: Path, **tensors: torch.Tensor) -> dict[str, StoredMatrix]:
    save_file(tensors, folder / "model.safetensors")
    return {name: StoredMatrix.of(stored) for name, stored in stored_tensors(folder).items()}


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_all_floats_of_checkpoints_become_float32(tmp_path: Path, kind: torch.dtype) -> None:
    matrix = saved(tmp_path, w=VALUES.to(kind))["w"]
    assert matrix.values().dtype == np.float32
    assert matrix.values().tolist() == VALUES.tolist()


def test_bfloat16_keeps_what_float16_cannot_hold(tmp_path: Path) -> None:
    save_file({"w": torch.tensor([1e30, -1e-30]).bfloat16()}, tmp_path / "model.safetensors")
    found = read_values(stored_tensors(tmp_path)["w"])
    assert found.tolist() == torch.tensor([1e30, -1e-30]).bfloat16().float().tolist()


def test_blocks_are_rows_of_the_turned_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_matrix, "BLOCK", 4)  # two rows of two values
    matrix = saved(tmp_path, w=VALUES)["w"].transposed()
    assert matrix.shape == (3, 2)
    assert [block.tolist() for block in matrix.blocks()] == [[[1.0, 3.0], [-2.0, 4.0]], [[0.5, -0.25]]]


def test_columns_of_several_stand_side_by_side(tmp_path: Path) -> None:
    found = saved(tmp_path, q=VALUES, k=10 * VALUES[:1])
    joined = found["q"].transposed().beside([found["k"].transposed()])
    assert joined.shape == (3, 3)
    assert joined.values().tolist() == [[1.0, 3.0, 10.0], [-2.0, 4.0, -20.0], [0.5, -0.25, 5.0]]


def test_a_file_that_gets_shorter_is_an_error_not_a_crash(tmp_path: Path) -> None:
    matrix = saved(tmp_path, w=torch.ones(300, 300))["w"]
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(StageError) as error:
        matrix.values()
    assert error.value.message == (
        "The weights file model.safetensors was changed, cut short or removed while it was read."
    )


def test_a_file_that_goes_away_is_the_same_error(tmp_path: Path) -> None:
    matrix = saved(tmp_path, w=VALUES)["w"]
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(StageError, match=r"model\.safetensors was changed, cut short or removed"):
        matrix.values()
