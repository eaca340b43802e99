"""Frames, dense numbers, signals, quantities, keypoints and spans, on tables by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UsageError
from pipeline.tasks.dense import DENSE
from pipeline.tasks.frames import FRAMES
from pipeline.tasks.keypoints import KEYPOINTS
from pipeline.tasks.output_kind import Output
from pipeline.tasks.question_answering import END, SPAN, START
from pipeline.tasks.registry import OUTPUTS
from pipeline.tasks.regression import QUANTITIES
from pipeline.tasks.signals import SIGNAL


def rows(kind: object, *samples: object) -> np.ndarray:
    made = [kind.rows({"y": np.asarray(sample, np.float32)[None]}, {}) for sample in samples]  # type: ignore[attr-defined]
    return kind.join(made)  # type: ignore[attr-defined,no-any-return]


def test_voice_activity_of_recordings_of_two_lengths() -> None:
    """5 frames, of which float finds 3 active and the other 2 of these: F1 4 / 5."""
    expected = rows(FRAMES, [[0.9], [0.8], [0.1]], [[0.7], [0.2]])
    other = rows(FRAMES, [[0.9], [0.4], [0.1]], [[0.6], [0.2]])
    found = FRAMES.fidelity(expected, other)
    assert found.scores == pytest.approx({"agreement": 0.8, "f1_of_float": 0.8})
    assert FRAMES.against([[1, 1, 0], [1, 0]], other)["f1"] == pytest.approx(80.0)
    assert FRAMES.against([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0]], expected)["f1"] == 100.0
    assert FRAMES.against([np.array([[1], [1], [0]]), np.array([[1], [0]])], expected)["frame_accuracy"] == 100.0


def test_frames_of_several_classes() -> None:
    found = rows(FRAMES, [[3.0, 1.0], [-1.0, 2.0]])
    assert FRAMES.against([[0, 1]], found)["frame_accuracy"] == 100.0
    with pytest.raises(UsageError, match=r"has the label 2; the model has 2 classes"):
        FRAMES.against([[0, 2]], found)
    with pytest.raises(ValueError, match="there are 3 labels a frame; the model gives 2"):
        FRAMES.against([np.ones((2, 3))], found)


def test_depths() -> None:
    """Error 0.1 in one of 4 places that vary by 5 around their mean."""
    expected, other = rows(DENSE, [[1.0, 2.0], [3.0, 4.0]]), rows(DENSE, [[1.5, 2.0], [3.0, 4.0]])
    assert DENSE.fidelity(expected, other).drop == pytest.approx(100 * 0.25 / (0.01 * 30))
    labels = [np.array([[1.0, 2.0], [0.0, 4.0]])]
    assert DENSE.against(labels, expected)["delta1"] == 100.0
    of_float, of_other = DENSE.against(labels, expected), DENSE.against(labels, other)
    assert DENSE.lost(of_float, of_other, DENSE.fidelity(expected, other))[0] == "error_in_std"


def test_enhanced_signals() -> None:
    clean = np.sin(np.arange(64) / 3)
    expected = rows(SIGNAL, clean + 0.01 * np.cos(np.arange(64)))
    found = SIGNAL.fidelity(expected, rows(SIGNAL, clean + 0.05 * np.cos(np.arange(64))))
    assert found.primary == "si_snr_of_float_db"
    assert found.drop == pytest.approx(100 * 10 ** (-found.scores["si_snr_of_float_db"] / 10))
    assert SIGNAL.against([clean], expected)["si_snr_db"] == pytest.approx(40, abs=3)
    with pytest.raises(ValueError, match="a signal has 64 values, its label 3"):
        SIGNAL.against([clean[:3]], expected)


def test_the_worst_of_all_quantities_decides() -> None:
    """Of two outputs with three values in all, one is off by half a standard deviation."""
    values = np.array([[0, 5, 10], [2, 5, 30]], np.float32)
    kind = QUANTITIES.bound(("steer", "gear"), {})
    made = [kind.rows({"steer": row[None, :1], "gear": row[None, 1:]}, {}) for row in values]
    expected = kind.join(made)
    assert expected.tolist() == values.tolist()
    found = kind.fidelity(expected, expected + np.array([0.5, 0, 0], np.float32))
    assert (found.scores["error_in_std"], found.drop) == (0.5, 25.0)
    assert kind.against(values.tolist(), expected)["r2"] == 100.0
    assert kind.judged([Output("a", "float32", (1, 3)), Output("b", "int64", (1,))]) == ["a"]


def test_keypoints_of_heatmaps() -> None:
    heat = np.zeros((1, 2, 4, 8), np.float32)
    heat[0, 0, 1, 2] = heat[0, 1, 3, 7] = 1
    found = KEYPOINTS.rows({"heatmaps": heat}, {})
    assert found.tolist() == [[[2.5 / 8, 1.5 / 4], [7.5 / 8, 3.5 / 4]]]
    labels = [np.array([[2.5 / 8, 1.5 / 4, 2], [0.1, 0.1, 0]])]
    assert KEYPOINTS.fidelity(found, found).drop == 0.0
    moved = found + np.array([[[0.2, 0], [0, 0]]])
    assert KEYPOINTS.fidelity(found, moved).scores["pck_of_float"] == 0.5
    with pytest.raises(ValueError, match="no point is visible"):
        KEYPOINTS.against([np.zeros((2, 3))], found)
    assert KEYPOINTS.against(labels, found)["oks"] == 100.0


def test_spans_begin_before_they_end() -> None:
    outputs = {START: np.array([[0, 1, 5, 9.0]]), END: np.array([[0, 8, 2, 3.0]])}
    assert SPAN.rows(outputs, {}).tolist() == [[3, 3]]
    hidden = {"input_ids": np.zeros((1, 4)), "attention_mask": np.array([[1, 1, 1, 0]])}
    assert SPAN.rows(outputs, hidden).tolist() == [[1, 1]]
    expected, other = np.array([[2.0, 5], [1, 1]]), np.array([[4.0, 7], [1, 1]])
    found = SPAN.fidelity(expected, other)
    assert found.scores == {"span_f1_of_float": 0.75, "same_span": 0.5}
    assert SPAN.against([[2, 5], [1, 1]], other) == {"span_f1": 75.0, "exact": 50.0}


def test_a_head_where_none_is_decoded() -> None:
    with pytest.raises(UsageError, match=r"The recipe has a table \[head\], but embeddings are not decoded\."):
        OUTPUTS.get("embedding").read_head({"blank": 0}, {}, {}, Path())


@pytest.mark.parametrize("name", [name for name in OUTPUTS if name not in ("detector",)])
def test_an_output_that_no_kind_but_generic_takes(name: str) -> None:
    """A number of booleans: told before anything runs, with what would be accepted."""
    offered = [Output("flag", "bool", (1, 2, 3, 4, 5))]
    if name == "generic":
        assert OUTPUTS.get(name).judged(offered) == ["flag"]
        return
    with pytest.raises(UsageError) as caught:
        OUTPUTS.get(name).judged(offered)
    assert OUTPUTS.get(name).wants in caught.value.message
    assert "--task generic" in caught.value.remedy
