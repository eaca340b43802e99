"""Exports from Python, of models in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import check, export
from pipeline.bundle.records import read_metadata


def test_a_module_is_exported_and_told_how_far_it_is(
    workspace: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 8)).train()
    np.savez("x.npz", x=np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32))
    steps: list[tuple[str, int, int]] = []
    result = export(
        net,
        "lenient",
        example_inputs={"input": torch.zeros(2, 64)},
        store=store,
        progress=lambda *step: steps.append(step),
        task="image-classification",
        recipe="w8a8-dynamic",
        calibration_data="x.npz",
        eval_data=["x.npz"],
        output=Path("out"),
    )
    assert net.training
    assert repr(result) == f"Result({result.report!r}, folder={str(result.folder)!r})"
    assert result.report.model == read_metadata(result.folder / "bundle").model == "Sequential"
    assert {"trace float model", "quantize"} <= {title for title, _, _ in steps}
    assert all(0 <= done <= total for _, done, total in steps)
    assert check(result.folder / "bundle", "lenient", store=store).verdict == result.report.verdict
