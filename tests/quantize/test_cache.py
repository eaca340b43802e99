"""How large keys and values get, seen by the stage that calibrates them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_attention import GROUPS, attention
from model_specs import hugging_face

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.model_spec import LanguageSpec, ModelSpec
from pipeline.core.stage import MODEL, StageContext, StageMetadata
from pipeline.core.types import silent
from pipeline.data.samples import write_samples
from pipeline.graph.files import save_graphs
from pipeline.quantize.cache import read_magnitudes, run

LANGUAGE = LanguageSpec(layers=1, heads=GROUPS, size=16, queries=8, hidden=128, vocabulary=50, longest=32)


def calibrated(folder: Path, texts: list[int], tokens: int = 64, **form: Any) -> tuple[dict[str, Any], StageMetadata]:
    """Magnitudes and metadata of texts of so many tokens; the model may read `tokens` of them."""
    for name in ("graph", "samples", "out"):
        (folder / name).mkdir()
    save_graphs(folder / "graph", {"model": attention(**form)})
    generator = np.random.default_rng(3)
    rows = [{"input_ids": generator.integers(0, 50, (1, count))} for count in texts]
    write_samples(folder / "samples", rows)
    inputs = {name: Artifact(folder / name, name, "", "", {}) for name in ("graph", "samples")}
    spec: ModelSpec = hugging_face(Path("llama"), language=LANGUAGE, head={"tokens": tokens, "every": 1})
    facts = run(StageContext({}, inputs, folder / "out", silent, models={MODEL: spec}))
    return read_magnitudes(Artifact(folder / "out", "cache", "", "", {})), facts


def test_texts_are_read_in_windows_as_long_as_the_context(tmp_path: Path) -> None:
    """Of 20, 20 and 40 tokens, 64 are read: two windows of 32."""
    found, facts = calibrated(tmp_path, [20, 20, 40])
    assert facts == {"windows": 2, "tokens": 64, "notes": []}
    assert {name: array.shape for name, array in found.items()} == {"key": (2, 16), "value": (2, 16)}
    ids = np.concatenate([row.ravel() for row in _rows([20, 20, 40])])[:64]
    table = np.random.default_rng(0)
    tables = [table.normal(0, 1, (50, width)).astype(np.float32) for width in (8 * 16, 2 * 16, 2 * 16)]
    assert found["value"] == pytest.approx(np.abs(tables[2][ids]).max(0).reshape(2, 16))
    radius = np.hypot(*np.split(tables[1][ids].reshape(-1, 2, 16), 2, axis=-1)).max(0)
    assert (found["key"].reshape(2, 2, 8).max(1) <= radius + 1e-5).all()
    assert found["key"][:, 0] == pytest.approx(radius[:, 0], rel=1e-5)  # the fastest pair turns all the way


def _rows(counts: list[int]) -> list[Any]:
    generator = np.random.default_rng(3)
    return [generator.integers(0, 50, (1, count)) for count in counts]


def test_late_positions_that_no_text_reaches_are_told(tmp_path: Path) -> None:
    """Keys that are not turned in the operator: what they are at later positions only texts show."""
    _, facts = calibrated(tmp_path, [20], turned=0)
    assert (facts["windows"], facts["tokens"]) == (1, 20)
    (note,) = facts["notes"]
    assert note.startswith("Calibration texts have 20 tokens together, and the context 32: ")


def test_texts_that_are_too_short_do_for_keys_that_are_turned(tmp_path: Path) -> None:
    _, facts = calibrated(tmp_path, [20])
    assert facts == {"windows": 1, "tokens": 20, "notes": []}


def test_texts_without_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="No calibration text has a token: how"):
        calibrated(tmp_path, [0])
