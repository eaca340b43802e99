"""Each kind of output on tables that can be checked by hand, and with the float model's own answers."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.errors import UsageError
from pipeline.tasks.output_kind import LabelKind, Output
from pipeline.tasks.registry import OUTPUTS, by_width, compute_fidelity

NUMBERS = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)


def test_a_single_logit_is_no_class() -> None:
    """Turned round, the top class of one logit still agrees; its ranks do not."""
    found = compute_fidelity("classifier", NUMBERS, -NUMBERS)
    assert found.scores["rank_correlation"] == pytest.approx(-1)
    assert (found.primary, found.drop) == ("rank_correlation", pytest.approx(200.0))


def test_a_shift_that_keeps_the_ranks_is_an_error() -> None:
    """All numbers half a standard deviation (sqrt 1.25) too high: a quarter of their variance is lost."""
    found = OUTPUTS.get("scores").fidelity(NUMBERS, NUMBERS + np.float32(0.5 * np.sqrt(1.25)))
    assert found.scores == pytest.approx({"rank_correlation": 1.0, "error_in_std": 0.5})
    assert (found.primary, found.drop) == ("error_in_std", pytest.approx(25.0))


def test_the_worst_of_several_outputs_decides() -> None:
    reference = np.concatenate([NUMBERS, 100 * NUMBERS], axis=1)
    other = np.concatenate([-NUMBERS, 100 * NUMBERS], axis=1)
    assert OUTPUTS.get("scores").fidelity(reference, other).drop == pytest.approx(200.0)
    of_float, of_other = (OUTPUTS.get("scores").against(reference.tolist(), rows) for rows in (reference, other))
    assert of_other == pytest.approx({"spearman_0": -100.0, "spearman_1": 100.0})
    fidelity = OUTPUTS.get("scores").fidelity(reference, reference)
    assert OUTPUTS.get("scores").lost(of_float, of_other, fidelity) == ("spearman_0", pytest.approx(200.0))


def test_labels_that_float_cannot_follow_hide_no_damage() -> None:
    judge_ = OUTPUTS.get("scores")
    noise = [1.0, 0.0, 1.0, 0.0]
    fidelity = judge_.fidelity(NUMBERS, -NUMBERS)
    lost = judge_.lost(judge_.against(noise, NUMBERS), judge_.against(noise, -NUMBERS), fidelity)
    assert lost == ("rank_correlation", pytest.approx(200.0))


def test_independent_labels_are_decided_one_by_one() -> None:
    """8 decisions, of which 2 differ; float's sum to 3 right of 3 labels, the other's to 1 of 3 with no false one."""
    reference = np.array([[1, -1], [1, 1], [-1, -1], [-1, -1]], np.float32)
    other = np.array([[1, -1], [-1, -1], [-1, -1], [-1, -1]], np.float32)
    labels = [[1, 0], [1, 1], [0, 0], [0, 0]]
    found = OUTPUTS.get("labels").fidelity(reference, other)
    assert (found.scores["agreement"], found.drop) == (0.75, 25.0)
    of_float, of_other = (OUTPUTS.get("labels").against(labels, rows) for rows in (reference, other))
    assert of_float == {"micro_f1": 100.0, "macro_f1": 100.0}
    assert of_other == pytest.approx({"micro_f1": 50.0, "macro_f1": 100 * (2 / 3) / 2})
    assert OUTPUTS.get("labels").lost(of_float, of_other, found) == ("macro_f1", pytest.approx(100 - 100 / 3))
    by_index: list[object] = [[0], [0, 1], [], []]
    assert OUTPUTS.get("labels").against(by_index, other) == of_other


def test_sigmoids_are_decided_at_one_half() -> None:
    chances = np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)
    assert OUTPUTS.get("labels").against([[1, 0], [0, 1]], chances)["micro_f1"] == 100.0


@pytest.mark.parametrize(
    ("declared", "columns", "found"),
    [
        ("classifier", 1, "scores"),
        ("classifier", 2, "classifier"),
        ("labels", 1, "scores"),
        ("tokens", 1, "token_scores"),
        ("embedding", 1, "scores"),
        ("scores", 5, "scores"),
        ("detector", 9, "detector"),
    ],
)
def test_what_outputs_of_a_size_are(declared, columns: int, found: str) -> None:
    assert by_width(declared, columns).name == found


@pytest.mark.parametrize(
    ("labels", "pairs", "family", "kind"),
    [
        (None, False, "classifier", "none"),
        ([0.5, 1.0], True, "embedding", "pairs"),
        ([0.5, 1.0], True, "classifier", "numbers"),
        ([0, 2.0], False, "classifier", "classes"),
        ([-1, 2.0], False, "classifier", "numbers"),
        ([[0, 1], [1, 1]], False, "classifier", "sets"),
        ([[3], [1]], False, "labels", "indices"),
        ([[3], [1, 2]], False, "classifier", "indices"),
        ([[0.5, 3], [1, 2]], False, "classifier", "vectors"),
        ([[0, 1], [1, 1]], False, "tokens", "tags"),
        ([[[0, 0.1, 0.1, 0.2, 0.2]], []], False, "detector", "objects"),
        ([[[0, 0.1, 0.1, 0.2, 0.2]], []], False, "classifier", "objects"),
    ],
)
def test_what_labels_are(labels, pairs: bool, family, kind: LabelKind) -> None:
    assert OUTPUTS.get(family).label_kind(labels, pairs) == kind


@pytest.mark.parametrize("family", ["embedding", "classifier", "tokens", "scores", "token_scores", "labels"])
def test_float_loses_nothing_to_itself(family) -> None:
    rows = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
    assert OUTPUTS.get(family).fidelity(rows, rows).drop == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(None, 3, 1, 1), (None, 1, 1, 3)])
def test_what_pooling_leaves_of_a_map_is_a_vector(shape: tuple[int | None, ...]) -> None:
    """Converters leave the two axes of 1 that a pooled map has."""
    output = Output("y", "float32", shape)
    for name in ("classifier", "embedding"):
        assert OUTPUTS.get(name).judged([output]) == ["y"]
    made = np.array([1.0, 3.0, 2.0], np.float32).reshape(1, *(size or 1 for size in shape[1:]))
    assert OUTPUTS.get("classifier").rows({"y": made}, {}).tolist() == [[1.0, 3.0, 2.0]]
    assert OUTPUTS.get("classifier").declared_classes([output]) == 3
    with pytest.raises(UsageError, match="which takes floats"):
        OUTPUTS.get("embedding").judged([Output("y", "float32", (None, 3, 4, 4))])
