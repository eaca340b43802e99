"""Every stage has a title."""

from __future__ import annotations

import pytest

from pipeline.plan.stage_titles import title_of


@pytest.mark.parametrize(
    ("stage", "title"),
    [
        ("trace.float", "trace float model"),
        ("compress.0.prune", "pass 1: prune"),
        ("compress.11.low_rank", "pass 12: low_rank"),
        ("samples.training.1", "read training samples"),
        ("samples.evaluation.2", "read evaluation samples"),
        ("vocabulary.2", "trim the vocabulary"),
        ("teacher.1", "record the teacher's outputs"),
    ],
)
def test_titles(stage: str, title: str) -> None:
    assert title_of(stage) == title
