"""Average precision: a table worked out by hand, and an independent, slow computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.detection import (
    Boxes,
    average_precision,
    corners,
    decode_queries,
    detection_fidelity,
    iou,
    match,
    mean_average_precision,
    truth,
)


def image(*objects: tuple[float, float, float, float, int, float]) -> Boxes:
    rows = np.array(objects, float).reshape(-1, 6)
    return Boxes(rows[:, :4], rows[:, 4].astype(int), rows[:, 5])


def test_corners_of_centre_and_size() -> None:
    assert corners(np.array([[0.5, 0.5, 0.2, 0.4]])) == pytest.approx(np.array([[0.4, 0.3, 0.6, 0.7]]))


def test_overlaps() -> None:
    """2x2 boxes shifted by 1: 2 / 6; the same box: 1; apart: 0; two empty ones: 0."""
    box = np.array([[0, 0, 2, 2]], float)
    others = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6], [1, 1, 1, 1]], float)
    assert iou(box, others)[0] == pytest.approx([1 / 3, 1, 0, 0])
    assert iou(others[3:], others[3:])[0] == pytest.approx([0])


def test_an_object_is_hit_once() -> None:
    box = np.array([[0, 0, 2, 2]], float)
    assert match(iou(np.repeat(box, 2, 0), box), [0.5]).tolist() == [[True, False]]
    assert match(iou(box, np.zeros((0, 4))), [0.5]).tolist() == [[False]]


def test_each_threshold_takes_its_own() -> None:
    """The first box overlaps the object by a third, the second by all of it: at 0.5 it is still free for the second."""
    object_, boxes = np.array([[0, 0, 2, 2]], float), np.array([[1, 0, 3, 2], [0, 0, 2, 2]], float)
    assert match(iou(boxes, object_), [0.3, 0.5]).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize(
    ("hits", "positives", "expected"),
    [
        ([True], 1, 1.0),
        ([False], 1, 0.0),
        ([], 2, 0.0),
        ([True], 2, 51 / 101),  # recalls 0 to 0.50 have precision 1, the rest 0
        ([False, True], 1, 0.5),
        ([True, False, True], 2, (51 + 50 * 2 / 3) / 101),
    ],
)
def test_average_precision_at_101_recalls(hits: list[bool], positives: int, expected: float) -> None:
    assert average_precision(np.array(hits, bool), positives) == pytest.approx(expected)


def test_mean_over_classes_and_thresholds() -> None:
    """Class 0 is found exactly, class 1 with an overlap of 2/3: right at 0.5, 0.55, 0.6 and 0.65 of ten thresholds."""
    wanted = [image((0, 0, 1, 1, 0, 1), (0, 0, 3, 1, 1, 1))]
    found = [image((0, 0, 1, 1, 0, 0.9), (0, 0, 2, 1, 1, 0.8))]
    assert mean_average_precision(found, wanted, [0.5]) == pytest.approx(100)
    assert mean_average_precision(found, wanted) == pytest.approx(100 * (1 + 0.4) / 2)


def test_classes_without_labels_do_not_count() -> None:
    wanted, found = [image((0, 0, 1, 1, 0, 1))], [image((0, 0, 1, 1, 0, 0.9), (0, 0, 1, 1, 7, 0.9))]
    assert mean_average_precision(found, wanted) == pytest.approx(100)


@pytest.mark.parametrize(
    ("found", "wanted", "message"),
    [
        ([], [image((0, 0, 1, 1, 0, 1))], "0 images with detections, 1 with labels"),
        ([image()], [image()], "no image has a labelled object"),
    ],
)
def test_what_has_no_average_precision(found: list[Boxes], wanted: list[Boxes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_average_precision(found, wanted)


def test_queries_are_decoded() -> None:
    """Classes a, b and `no object`: softmax of (ln 2, 0, 0) is (1/2, 1/4, 1/4); the second query is surer."""
    queries = np.array([[[np.log(2), 0, 0, 0.5, 0.5, 1, 1], [0, np.log(8), 0, 0.5, 0.5, 0.2, 0.2]]])
    (found,) = decode_queries(queries)
    assert found.classes.tolist() == [1, 0]
    assert found.scores == pytest.approx([0.8, 0.5])
    assert found.boxes == pytest.approx(np.array([[0.4, 0.4, 0.6, 0.6], [0, 0, 1, 1]]))


@pytest.mark.parametrize("sureness", [0.1, 1.0, 6.0])
def test_a_detector_agrees_with_itself(sureness: float) -> None:
    """However sure it is of anything; and less with one whose boxes are elsewhere."""
    rows = sureness * np.random.default_rng(0).normal(size=(3, 6, 8))
    rows[..., -4:] = np.random.default_rng(1).uniform(0.2, 0.4, (3, 6, 4))
    found = decode_queries(rows)
    assert detection_fidelity(found, found) == pytest.approx({"map_50_of_float": 1, "map_50_95_of_float": 1})
    moved = rows.copy()
    moved[..., -4:-2] += 0.5
    assert detection_fidelity(decode_queries(rows), decode_queries(moved))["map_50_of_float"] == 0


def slow_map(found: list[Boxes], wanted: list[Boxes], threshold: float) -> float:
    """Straight from the definition: lists and loops, one detection at a time."""
    results = []
    for number in sorted({int(c) for labels in wanted for c in labels.classes}):
        ranked = sorted(
            (-one.scores[k], i, k) for i, one in enumerate(found) for k, c in enumerate(one.classes) if c == number
        )
        free = {(i, k) for i, one in enumerate(wanted) for k, c in enumerate(one.classes) if c == number}
        positives, right, curve = len(free), 0, []
        for rank, (_, i, k) in enumerate(ranked, start=1):
            overlaps = [(overlap(found[i].boxes[k], wanted[i].boxes[j]), -j) for (at, j) in free if at == i]
            if overlaps and max(overlaps)[0] >= threshold:
                free.remove((i, -max(overlaps)[1]))
                right += 1
            curve.append((right / positives, right / rank))
        points = [max((p for r, p in curve if r >= level), default=0.0) for level in np.linspace(0, 1, 101)]
        results.append(sum(points) / 101)
    return 100 * sum(results) / len(results)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_agrees_with_a_slow_computation(seed: int) -> None:
    generator = np.random.default_rng(seed)

    def some(count: int) -> Boxes:
        centres, sizes = generator.uniform(0.3, 0.7, (count, 2)), generator.uniform(0.2, 0.5, (count, 2))
        boxes = corners(np.concatenate([centres, sizes], axis=1))
        return Boxes(boxes, generator.integers(0, 2, count), generator.permutation(count * 50)[:count] / 1000 + 0.001)

    wanted = [some(3) for _ in range(3)]
    found = [some(8) for _ in range(3)]
    for number, one in enumerate(found):  # no two scores alike, so that the order is the same
        one.scores[:] += number * 1e-5
    for threshold in (0.5, 0.75):
        expected = slow_map(found, wanted, threshold)
        assert mean_average_precision(found, wanted, [threshold]) == pytest.approx(expected)


def test_labels_are_centre_and_size() -> None:
    labelled = truth(np.array([[0.5, 0.5, 1, 1]]), np.array([3]))
    assert labelled.boxes.tolist() == [[0, 0, 1, 1]]
    assert (labelled.classes.tolist(), labelled.scores.tolist()) == ([3], [1])
