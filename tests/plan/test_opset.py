"""The opset that an export is written in."""

from __future__ import annotations

import pytest

from pipeline.config.job import Job
from pipeline.core.errors import UsageError
from pipeline.plan.opset import choose_opset


def job(**fields: object) -> Job:
    return Job.model_validate(fields)


@pytest.mark.parametrize(
    ("asked", "given_onnx", "opset"),
    [
        (job(), False, 23),
        (job(), True, 21),
        (job(opset=22), False, 22),
        (job(min_onnxruntime="1.20"), False, 21),
        (job(min_onnxruntime="1.22.1"), False, 22),
        (job(min_onnxruntime="1.40"), False, 23),
        (job(min_onnxruntime="1.40"), True, 21),
        (job(min_onnxruntime="1.24", opset=21), False, 21),
    ],
)
def test_opset_for_a_release(asked: Job, given_onnx: bool, opset: int) -> None:
    assert choose_opset(asked, given_onnx).version == opset


def test_what_a_lower_opset_costs_is_said() -> None:
    assert choose_opset(job(min_onnxruntime="1.20"), given_onnx=False).notes == (
        "The graph is written in opset 21 for ONNX Runtime 1.20, instead of 23: what only opset 23 has an operator for "
        "is written out (attention, norms without a mean).",
    )
    assert choose_opset(job(min_onnxruntime="1.24"), given_onnx=False).notes == ()


@pytest.mark.parametrize(
    ("asked", "message", "remedy"),
    [
        (
            job(min_onnxruntime="1.17"),
            "ONNX Runtime 1.17 does not load opset 21, the oldest that bundles are written in.",
            "1.18 is the oldest release that does: --min-onnxruntime 1.18.",
        ),
        (
            job(min_onnxruntime="new"),
            "--min-onnxruntime 'new' is no release of ONNX Runtime.",
            "For example: --min-onnxruntime 1.20.",
        ),
        (
            job(min_onnxruntime="1.20", opset=23),
            "ONNX Runtime 1.20 does not load opset 23.",
            "Ask for --opset 21, or for --min-onnxruntime 1.24.",
        ),
    ],
)
def test_what_cannot_be(asked: Job, message: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_opset(asked, given_onnx=False)
    assert (caught.value.message, caught.value.remedy) == (message, remedy)
