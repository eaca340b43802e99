"""Texts of CTC models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UsageError
from pipeline.tasks.ctc import CTC, CTC_WORDS

HEAD = {"blank": 0, "alphabet": "ab "}
KIND = CTC.bound(("logits",), HEAD)


def rows(*paths: list[int], kind: object = KIND, classes: int = 4) -> np.ndarray:
    return KIND.join([kind.rows({"logits": np.eye(classes)[path][None]}, {}) for path in paths])  # type: ignore[attr-defined]


def test_texts_are_decoded_and_scored() -> None:
    """`ab a` and `b` against `ab b` and `b`: 1 edit of 5 characters, 1 word of 3."""
    found = rows([1, 1, 0, 2, 3, 1], [2, 2, 0])
    scores = KIND.against(["ab b", "b"], found)
    assert scores == pytest.approx(
        {"character_accuracy": 80.0, "word_accuracy": 100 * 2 / 3, "cer": 20.0, "wer": 100 / 3}
    )
    assert next(iter(scores)) == "character_accuracy"
    assert next(iter(CTC_WORDS.bound(("y",), HEAD).against(["ab b", "b"], found))) == "word_accuracy"


def test_space_around_a_text_is_no_error() -> None:
    assert KIND.against([" ab"], rows([3, 1, 2, 3]))["cer"] == 0.0


def test_edits_of_float() -> None:
    expected, other = rows([1, 0, 2, 2, 3], [1]), rows([1, 0, 2, 1, 3], [1])
    found = KIND.fidelity(expected, other)
    assert found.scores == {"edits_of_float": 0.25, "same_text": 0.5}
    assert found.drop == 25.0
    assert KIND.fidelity(expected, KIND.constant(expected)).drop == 50.0


def test_a_batch_on_the_second_axis_and_a_last_blank() -> None:
    """The blank is not given: the last class, which is more frequent than the first."""
    frames = np.eye(4)[[0, 3, 3, 0, 1, 3]]
    found = CTC.rows({"y": frames[:, None]}, {})
    assert CTC.fidelity(found, found).drop == 0.0
    assert found[0].tolist()[-3:] == [0, 0, 1]


def test_the_alphabet_of_a_paddle_export() -> None:
    found = CTC.read_head({}, {}, {"character": "x\ny"}, Path("nowhere"))
    assert found == {"blank": 0, "alphabet": ["x", "y", " "]}
    assert CTC.bound(("y",), found).text([2, 1, 3]) == "yx "


def test_the_alphabet_of_a_transformers_folder(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<s>": 1, "|": 2, "E": 3, "T": 4}))
    found = CTC.read_head({}, {"pad_token_id": 0}, {}, tmp_path)
    assert CTC.bound(("y",), found).text([4, 3, 2, 1, 4]) == "TE T"


def test_texts_without_an_alphabet_are_refused() -> None:
    with pytest.raises(UsageError, match="nothing says which class of the model is which character"):
        CTC.bound((), {}).refuse(["ab"])
    KIND.refuse(["ab"])


def test_a_head_with_a_mistake() -> None:
    with pytest.raises(UsageError, match=r"\[head\] of the recipe has 1 mistake:\n  - blanc: unknown key\. "):
        CTC.read_head({"blanc": 0}, {}, {}, Path("nowhere"))
