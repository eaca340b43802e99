"""Heads of detectors: one box in a made output of each family, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UsageError
from pipeline.tasks.detection import DETECTOR, TEXT_DETECTOR
from pipeline.tasks.output_kind import Output

IMAGE = {"images": np.zeros((1, 3, 64, 128), np.float32)}
BOX = [0.25, 0.25, 0.5, 0.75]
"""x1, y1, x2, y2; in an image of 64 x 128 the centre is 48, 32 and the sides 32, 32."""


def logit(chance: float) -> float:
    return float(np.log(chance / (1 - chance)))


def yolov8() -> dict[str, np.ndarray]:
    found = np.full((1, 4 + 3, 20), 0.001)
    found[0, :4] = 1.0
    found[0, :, 7] = [48, 32, 32, 32, 0.1, 0.1, 0.8]
    return {"output0": found}


def yolov5() -> dict[str, np.ndarray]:
    found = np.full((1, 20, 5 + 3), 0.001)
    found[0, 7] = [48, 32, 32, 32, 0.8, 0, 0, 1]
    return {"output": found}


def yolox() -> dict[str, np.ndarray]:
    """Strides 32 and 64: 8 and 2 places. The third of the second row of the first is at 2, 1."""
    found = np.full((1, 8 + 2, 5 + 3), -9.0)
    found[0, 6] = [48 / 32 - 2, 0, 0, 0, logit(0.8), -60, -60, 60]
    return {"output": found}


def fastestdet() -> dict[str, np.ndarray]:
    found = np.zeros((1, 5 + 3, 4, 8))
    found[0, :, 2, 3] = [0.8, 0, 0, logit(0.25), logit(0.5), 0, 0, 0.8]
    return {"output": found}


def ssd() -> dict[str, np.ndarray]:
    scores = np.tile([0.99, 0.01, 0, 0], (20, 1))
    scores[7] = [0.2, 0, 0, 0.8]
    boxes = np.tile(BOX, (20, 1))
    boxes[7] = BOX
    return {"scores": scores[None], "boxes": boxes[None]}


def ssd_offsets() -> dict[str, np.ndarray]:
    """The anchor has half the sides and lies a tenth of them to the left."""
    found = ssd()
    found["boxes"] = np.zeros((1, 20, 4))
    found["boxes"][0, 7] = [1.0, 0, np.log(2) / 0.2, np.log(2) / 0.2]
    return found


def kept() -> dict[str, np.ndarray]:
    return {
        "detection_boxes": np.array([[[0.25, 0.25, 0.75, 0.5], [0, 0, 0, 0]]]),
        "detection_scores": np.array([[0.8, 0.0]]),
        "detection_classes": np.array([[2.0, 0.0]]),
    }


ANCHORS = [[0.375 - 0.1 * 0.125, 0.5, 0.125, 0.25]] * 20


@pytest.mark.parametrize(
    ("outputs", "head", "kind"),
    [
        (yolov8(), {}, "yolov8"),
        (yolov5(), {}, "yolov5"),
        (yolox(), {"kind": "yolox", "strides": [32, 64]}, "yolov5"),
        (fastestdet(), {}, "fastestdet"),
        (ssd(), {}, "ssd"),
        (ssd_offsets(), {"anchors": ANCHORS}, "ssd"),
        (kept(), {"format": "yxyx"}, "boxes"),
    ],
    ids=["yolov8", "yolov5", "yolox", "fastestdet", "ssd", "ssd with anchors", "after suppression"],
)
def test_a_box_is_read_off(outputs: dict[str, np.ndarray], head: dict[str, object], kind: str) -> None:
    settings = DETECTOR.read_head(head, {}, {}, Path())
    names = DETECTOR.bound((), settings).judged([Output(n, "float32", a.shape) for n, a in outputs.items()])
    bound = DETECTOR.bound(tuple(names), settings)
    rows = bound.rows({name: outputs[name] for name in names}, IMAGE)
    assert rows.shape == (1, 100, 7)
    x1, y1, x2, y2, number, score, classes = rows[0, 0]
    assert [x1, y1, x2, y2] == pytest.approx(
        [0.4375 - 0.125, 0.5 - 0.25, 0.4375 + 0.125, 0.75] if kind == "fastestdet" else BOX, abs=0.07
    )
    assert (number, score) == (2, pytest.approx(0.8, abs=1e-3))
    assert classes == (0 if kind == "boxes" else 3)
    assert bound.fidelity(rows, rows).drop == pytest.approx(0.0)
    label = [[2.0, *(rows[0, 0, :2] + rows[0, 0, 2:4]) / 2, *(rows[0, 0, 2:4] - rows[0, 0, :2])]]
    assert bound.against([label], rows)["map_50_95"] == pytest.approx(100.0)
    assert bound.against([np.array([*label, [-1.0, 0, 0, 0, 0]])], rows)["map_50_95"] == pytest.approx(100.0)
    if kind != "boxes":
        with pytest.raises(UsageError, match=r"has the label 3; the model has 3 classes"):
            bound.against([[[3, 0.5, 0.5, 0.1, 0.1]]], rows)


def test_patches_of_text_are_boxes() -> None:
    """A patch of 40 x 10 pixels that is text grows by 1.5 x 400 / 100 = 6 pixels to each side, one of 2 x 2 is none."""
    found = np.full((1, 1, 64, 128), 0.01)
    found[0, 0, 20:30, 30:70] = 0.9
    found[0, 0, 50:52, 100:102] = 0.9
    (name,) = TEXT_DETECTOR.judged([Output("maps", "float32", (None, 1, 64, 128))])
    bound = TEXT_DETECTOR.bound((name,), {})
    rows = bound.rows({"maps": found}, IMAGE)
    assert np.count_nonzero(rows[0, :, 5]) == 1
    assert rows[0, 0] == pytest.approx([24 / 128, 14 / 64, 76 / 128, 36 / 64, 0, 0.9, 1])
    thinner = found.copy()
    thinner[0, 0, 20:22] = 0.01
    judged = bound.fidelity(rows, bound.rows({"maps": thinner}, IMAGE))
    assert (judged.primary, judged.drop) == ("map_50_of_float", 0.0)
    assert judged.scores["map_50_95_of_float"] < 0.7
    assert bound.fidelity(rows, bound.rows({"maps": np.zeros_like(found)}, IMAGE)).drop == 100.0


def test_a_head_that_is_not_there() -> None:
    offered = [Output("output0", "float32", (1, 84, 8400))]
    bound = DETECTOR.bound((), DETECTOR.read_head({"kind": "detr"}, {}, {}, Path()))
    with pytest.raises(UsageError) as caught:
        bound.judged(offered)
    assert caught.value.message == (
        "[head] of the recipe says detr, and the outputs are not those of one: output0 float32 [1, 84, 8400]."
    )
    assert caught.value.remedy == "Correct kind, or leave it out: the outputs look like yolov8."
    with pytest.raises(UsageError, match="The model is to be judged by detected objects, which takes 'logits'"):
        DETECTOR.judged([Output("y", "float32", (1, 10))])


def test_a_state_beside_boxes_is_no_score() -> None:
    offered = [Output("boxes", "float32", (None, 10, 4)), Output("state", "float32", (2, None, 20))]
    with pytest.raises(UsageError, match="which takes 'logits'"):
        DETECTOR.judged(offered)


def test_what_is_open_in_a_file_is_told_by_samples() -> None:
    assert DETECTOR.judged([Output("y", "float32", (None, None, None))]) == ["y"]


def test_anchors_of_another_number() -> None:
    settings = DETECTOR.read_head({"anchors": ANCHORS[:3]}, {}, {}, Path())
    bound = DETECTOR.bound(("boxes", "scores"), settings)
    outputs = ssd()
    with pytest.raises(UsageError, match="there are 3 anchors for 20 boxes"):
        bound.rows({name: outputs[name] for name in ("boxes", "scores")}, IMAGE)
