"""Non-maximum suppression, beside ONNX's operator as ONNX Runtime computes it."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from pipeline.metrics.detection import Boxes, suppress


def reference(boxes: np.ndarray, scores: np.ndarray, threshold: float, least: float) -> list[tuple[int, int]]:
    """(class, box) of what NonMaxSuppression leaves of scores [classes, boxes]."""
    names = ["boxes", "scores", "most", "overlap", "least"]
    kinds = [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT]
    inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, kinds, strict=True)]
    node = helper.make_node("NonMaxSuppression", names, ["kept"])
    output = helper.make_tensor_value_info("kept", TensorProto.INT64, None)
    model = helper.make_model(
        helper.make_graph([node], "nms", inputs, [output]), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {
        "boxes": boxes[None].astype(np.float32),
        "scores": scores[None].astype(np.float32),
        "most": np.array([1000]),
        "overlap": np.array([threshold], np.float32),
        "least": np.array([least], np.float32),
    }
    return [(int(kind), int(box)) for _, kind, box in session.run(None, feed)[0]]


def test_the_same_boxes_are_left() -> None:
    generator = np.random.default_rng(0)
    centres, sides = generator.random((80, 2)), 0.05 + 0.3 * generator.random((80, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    classes, scores = generator.integers(0, 3, 80), generator.random(80).round(3)
    by_class = np.where(np.arange(3)[:, None] == classes, scores, 0.0)
    kept = suppress(Boxes(boxes, classes, scores), 0.4, 0.2)
    wanted = {(kind, box) for kind, box in reference(boxes, by_class, 0.4, 0.2) if by_class[kind, box] >= 0.2}
    found = {
        (int(kind), int(np.flatnonzero((boxes == box).all(1))[0]))
        for box, kind in zip(kept.boxes, kept.classes, strict=True)
    }
    assert found == wanted
    assert 20 < len(found) < 80
    assert (np.diff(kept.scores) <= 0).all()


def test_boxes_of_two_classes_do_not_suppress_each_other() -> None:
    same = np.array([[0, 0, 1, 1.0]] * 3)
    kept = suppress(Boxes(same, np.array([0, 1, 0]), np.array([0.5, 0.9, 0.7])), 0.5, 0.6)
    assert (kept.classes.tolist(), kept.scores.tolist()) == ([1, 0], [0.9, 0.7])
