"""How large keys and values get, seen by the stage that calibrates them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_attention import GROUPS, attention
from model_specs import hugging_face
from numpy.typing import NDArray

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.model_spec import LanguageSpec
from pipeline.core.stage import MODEL, StageContext, StageMetadata
from pipeline.core.types import silent
from pipeline.data.samples import write_samples
from pipeline.graph.files import save_graphs
from pipeline.quantize.cache import read_magnitudes, run

LANGUAGE = LanguageSpec(layers=1, heads=GROUPS, size=16, queries=8, hidden=128, vocabulary=50, longest=32, begin=2)


Calibrated = Callable[..., tuple[dict[str, Any], StageMetadata]]


@pytest.fixture
def calibrated(tmp_path: Path, save_tokenizer: Callable[[Path], int]) -> Calibrated:
    """Magnitudes and metadata of texts of so many tokens; the model may read `tokens` of them."""

    def run_stage(texts: list[int], tokens: int = 62, **form: Any) -> tuple[dict[str, Any], StageMetadata]:
        for name in ("graph", "samples", "out"):
            (tmp_path / name).mkdir()
        save_tokenizer(tmp_path / "llama")
        save_graphs(tmp_path / "graph", {"model": attention(**form)})
        write_samples(tmp_path / "samples", [{"input_ids": ids} for ids in drawn(texts)])
        inputs = {name: Artifact(tmp_path / name, name, "", "", {}) for name in ("graph", "samples")}
        spec = hugging_face(tmp_path / "llama", language=LANGUAGE, head={"tokens": tokens, "every": 1})
        facts = run(StageContext({}, inputs, tmp_path / "out", silent, models={MODEL: spec}))
        return read_magnitudes(Artifact(tmp_path / "out", "cache", "", "", {})), facts

    return run_stage


def drawn(counts: list[int]) -> list[NDArray[np.int64]]:
    """Texts of the first 20 of 50 tokens."""
    generator = np.random.default_rng(3)
    return [generator.integers(0, 20, (1, count)) for count in counts]


def test_texts_and_the_vocabulary_are_read_in_windows_as_long_as_the_context(calibrated: Calibrated) -> None:
    """Of 20, 20 and 40 tokens, 62 are read: two windows of 31 and the token before a text; then 5 special tokens and
    the vocabulary's 50."""
    found, facts = calibrated([20, 20, 40])
    assert facts == {"windows": 4, "tokens": 62 + 55 + 4, "notes": []}
    assert {name: array.shape for name, array in found.items()} == {"key": (2, 16), "value": (2, 16)}
    draw = np.random.default_rng(0).normal  # as the graph's tables were drawn
    _, keys, values = (draw(0, 1, (50, width)).astype(np.float32) for width in (8 * 16, 2 * 16, 2 * 16))
    assert found["value"] == pytest.approx(np.abs(values).max(0).reshape(2, 16))  # no text has all tokens
    radius = np.hypot(*np.split(keys.reshape(50, 2, 16), 2, axis=-1)).max(0)
    assert (found["key"].reshape(2, 2, 8).max(1) <= radius + 1e-5).all()
    assert found["key"][:, 0] == pytest.approx(radius[:, 0], rel=1e-5)  # the fastest pair turns all the way


def test_no_more_of_the_vocabulary_is_read_than_of_texts(calibrated: Calibrated) -> None:
    _, facts = calibrated([20, 20, 40], tokens=31)
    assert facts == {"windows": 2, "tokens": 64, "notes": []}


def test_late_positions_that_no_text_reaches_are_told(calibrated: Calibrated) -> None:
    """Keys that are not turned in the operator: what they are at later positions only texts show."""
    (note,) = calibrated([20], turned=0)[1]["notes"]
    assert note.startswith("Calibration texts have 21 tokens together, and the context 32: ")


def test_texts_that_are_too_short_do_for_keys_that_are_turned(calibrated: Calibrated) -> None:
    assert calibrated([20])[1]["notes"] == []


def test_texts_without_tokens_are_refused(calibrated: Calibrated) -> None:
    with pytest.raises(StageError, match="No calibration text has a token: how"):
        calibrated([0])
