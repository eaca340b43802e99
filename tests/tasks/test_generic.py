"""Outputs that are compared as they are."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.tasks.generic import ANY, MOST_VALUES
from pipeline.tasks.whole_outputs import pack, unpack

BOXES = np.arange(24, dtype=np.float32).reshape(1, 6, 4)


def rows(*samples: dict[str, object]) -> np.ndarray:
    arrays = [{name: np.asarray(value) for name, value in sample.items()} for sample in samples]
    return ANY.join([ANY.rows(sample, {}) for sample in arrays])


def test_what_is_packed_comes_out_as_it_was() -> None:
    given = [BOXES, np.array([[2**53 - 1, -4]]), np.array([True, False]), np.array(0.5), np.zeros((2, 0))]
    row = np.pad(pack(given)[0], (0, 9), constant_values=np.nan)
    found = unpack(row)
    assert [array.shape for array in found] == [array.shape for array in given]
    assert [array.dtype.kind for array in found] == ["f", "i", "i", "f", "f"]
    assert all((a == b).all() for a, b in zip(found, given, strict=True))


def test_the_worst_of_all_outputs_decides() -> None:
    """The scores vary by 2 around their means, and 0.5 is lost of them; the classes of one sample of two differ."""
    kind = ANY.bound(["scores", "class"], {})
    expected = rows({"scores": [[0.0, 1.0]], "class": [3]}, {"scores": [[0.0, 3.0]], "class": [4]})
    other = rows({"scores": [[0.0, 1.5]], "class": [3]}, {"scores": [[0.5, 3.0]], "class": [4]})
    found = kind.fidelity(expected, other)
    assert found.scores == pytest.approx(
        {
            "sqnr_db.scores": 10 * np.log10(10 / 0.5),
            "error_in_std.scores": 0.5,
            "agreement.class": 1.0,
        }
    )
    assert (found.primary, found.drop) == ("error_in_std.scores", pytest.approx(25.0))
    wrong = rows({"scores": [[0.0, 1.0]], "class": [3]}, {"scores": [[0.0, 3.0]], "class": [5]})
    assert kind.fidelity(expected, wrong).primary == "agreement.class"
    assert kind.fidelity(expected, wrong).drop == 50.0
    assert kind.noise_db(expected, other) == pytest.approx(10 * np.log10(10 / 0.5))


def test_an_only_output_needs_no_name() -> None:
    expected = rows({"y": [1.0]}, {"y": [2.0]})
    assert set(ANY.fidelity(expected, expected).scores) == {"sqnr_db", "error_in_std"}
    assert ANY.fidelity(expected, expected).drop == 0.0


def test_samples_of_two_lengths() -> None:
    expected = rows({"frames": np.ones((1, 3, 2))}, {"frames": np.zeros((1, 5, 2))})
    assert expected.shape == (2, 1 + 5 + 10)
    assert ANY.fidelity(expected, expected).drop == 0.0
    cut = rows({"frames": np.ones((1, 3, 2))}, {"frames": np.zeros((1, 4, 2))})
    assert ANY.fidelity(expected, cut).drop == 100.0


def test_a_model_that_answers_every_sample_alike_loses_all() -> None:
    samples = [
        {"y": row[None], "ids": np.array([row.argmax()])} for row in np.random.default_rng(0).normal(size=(9, 4))
    ]
    expected = rows(*samples)
    assert ANY.fidelity(expected, ANY.constant(expected)).drop == pytest.approx(100.0)


def test_large_outputs_are_compared_at_places_spread_over_them() -> None:
    large = np.arange(4.0 * MOST_VALUES).reshape(1, 4, -1)
    (found,) = unpack(ANY.rows({"map": large}, {})[0])
    assert found.tolist() == list(range(0, 4 * MOST_VALUES, 4))


def test_answers_that_differ_by_rounding_are_the_same() -> None:
    expected = rows({"y": [[1.0, 5.0]], "ids": [1]}, {"y": [[4.0, 2.0]], "ids": [2]})
    near = rows({"y": [[1.00001, 5.0]], "ids": [1]}, {"y": [[4.0, 2.0]], "ids": [2]})
    far = rows({"y": [[1.1, 5.0]], "ids": [1]}, {"y": [[4.0, 2.0]], "ids": [2]})
    other = rows({"y": [[1.0, 5.0]], "ids": [1]}, {"y": [[4.0, 2.0]], "ids": [3]})
    assert [ANY.same(expected, found) for found in (near, far, other)] == [True, False, False]
