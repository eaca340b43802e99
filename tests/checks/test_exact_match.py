"""Problems that two models solve, by hand; tests/e2e has those of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.checks.exact_match import check_template, compared
from pipeline.core.errors import UsageError
from pipeline.data.readers.problems import Problem


def test_what_is_lost_and_gained() -> None:
    """Of ten problems float solves six; the other model loses two of them and solves one that float does not."""
    of_float = [True] * 6 + [False] * 4
    own = [False] * 2 + [True] * 5 + [False] * 3
    found = compared(of_float, own, dataset="sums", given=12, too_long=2, chat=False)
    assert (found.problems, found.given, found.too_long) == (10, 12, 2)
    assert (found.right_float, found.right, found.lost, found.drop) == (6, 5, 2, 10.0)
    assert found.low < 10.0 < found.high


def test_no_problems_at_all() -> None:
    found = compared([], [], dataset="sums", given=3, too_long=3, chat=True, reason="all are too long")
    assert (found.problems, found.drop) == (0, 0.0)
    assert -found.low == found.high > 97.0  # nothing is known


def test_a_chat_template_that_fails_is_told_with_what_helps(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('only tools') }}")
    with pytest.raises(UsageError) as caught:
        check_template(tmp_path, Problem("Why?", ("So.",), asked=True))
    assert caught.value.message == f"The chat template of {tmp_path} fails: only tools"
    assert caught.value.remedy.endswith("or give the problems as prompts (the column prompt).")
    check_template(tmp_path, Problem("Why?", ("So.",), asked=False))
