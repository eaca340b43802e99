"""Each loss on numbers worked out by hand, and what all of them share: nothing to lose where both agree."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.compress import LOSSES
from pipeline.compress.distill.losses.types import DistillInputs, ModelOutputs


def pair(student: ModelOutputs, teacher: ModelOutputs, mask: Tensor | None = None, **changes: object) -> DistillInputs:
    values = {"labels": None, "temperature": 1.0, "gather": lambda rows: rows, **changes}
    return DistillInputs(student, teacher, mask, **values)  # type: ignore[arg-type]


def outputs(student: list[list[float]], teacher: list[list[float]], **changes: object) -> DistillInputs:
    return pair(ModelOutputs(torch.tensor(student)), ModelOutputs(torch.tensor(teacher)), **changes)


def value(name: str, given: DistillInputs) -> float:
    return float(LOSSES.get(name).compute(given))


def test_soft_labels_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2). At T = 2 logits are halved, the result is
    times 4."""
    teacher, student = [[math.log(3.0), 0.0]], [[0.0, 0.0]]
    assert value("soft_labels", outputs(student, teacher)) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    warm = math.sqrt(3) / (1 + math.sqrt(3))
    expected = 4 * (warm * math.log(2 * warm) + (1 - warm) * math.log(2 * (1 - warm)))
    assert value("soft_labels", outputs(student, teacher, temperature=2.0)) == pytest.approx(expected)


def test_hard_labels_by_hand() -> None:
    given = outputs([[math.log(3.0), 0.0]], [[0.0, 0.0]], labels=torch.tensor([1]))
    assert value("hard_labels", given) == pytest.approx(math.log(4.0))


def test_outputs_by_hand() -> None:
    given = outputs([[3.0, 4.0], [2.0, 0.0]], [[0.0, 5.0], [1.0, 0.0]])
    assert value("outputs_mse", given) == pytest.approx(((9 + 1) / 25 + 1) / 2)
    assert value("embedding_cosine", given) == pytest.approx((0.2 + 0.0) / 2)


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        ([[0.0, 5.0], [0.0, 0.0]], 400.0),  # the mean of 0 and 1 over 1e-4 of the mean size, 12.5
        ([[0.0, 0.0], [0.0, 0.0]], 13.0),  # 25 and 1: no size anywhere: the errors themselves
    ],
)
def test_a_teacher_of_zeros_has_no_relative_error(teacher: list[list[float]], expected: float) -> None:
    assert value("outputs_mse", outputs([[0.0, 5.0], [1.0, 0.0]], teacher)) == pytest.approx(expected)


def test_similarity_by_hand() -> None:
    """The teacher's two rows are at right angles, the student's at 60 degrees: both entries off the diagonal differ by
    a half."""
    teacher = [[1.0, 0.0], [0.0, 1.0]]
    student = [[1.0, 0.0], [0.5, math.sqrt(0.75)]]
    assert value("similarity", outputs(student, teacher)) == pytest.approx(0.25)


def test_neighbours_by_hand() -> None:
    """Similarities of row 0 to the others: teacher 0 and 0.05 (weights 1 : e), student equal (1 : 1). Rows 1 and 2
    have theirs worked out by the same rule."""
    angle = math.acos(0.05)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.cos(angle), math.sin(angle)]])
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    expected = 0.0
    for row in range(3):
        others = [other for other in range(3) if other != row]
        ours = torch.tensor([float(student[row] @ student[other]) for other in others]) / 0.05
        theirs = torch.tensor([float(teacher[row] @ teacher[other]) for other in others]) / 0.05
        p, q = theirs.softmax(0), ours.softmax(0)
        expected += float((p * (p / q).log()).sum()) / 3
    first = math.e / (1 + math.e)
    assert first * math.log(2 * first) + (1 - first) * math.log(2 * (1 - first)) < 3 * expected
    assert value("neighbours", pair(ModelOutputs(student), ModelOutputs(teacher))) == pytest.approx(expected, rel=1e-4)


def test_hidden_states_by_hand() -> None:
    """One sample, its third position padded: error 1 + 4 over size 1 + 4, then 1 - cos of (1, 0) with (0, 1) is 1, of
    equal vectors 0."""
    teacher = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]]])
    student = torch.tensor([[[0.0, 1.0], [0.0, 2.0], [5.0, 5.0]]])
    mask = torch.tensor([[1, 1, 0]])
    given = pair(ModelOutputs(torch.zeros(1, 1), (student,)), ModelOutputs(torch.zeros(1, 1), (teacher,)), mask)
    assert value("hidden_mse", given) == pytest.approx(2 / 5)
    assert value("hidden_cosine", given) == pytest.approx(1 / 2)


def test_attention_relations_by_hand() -> None:
    """One head of one feature, two tokens. Teacher: q = k = v = (0, 0), uniform attention. Student: q = (1, 1),
    k = (ln 3, 0), so that both queries look with (3/4, 1/4); values agree. It is KL(uniform || (3/4, 1/4))."""
    zero = torch.zeros(1, 2, 1)
    ours = (torch.ones(1, 2, 1), torch.tensor([[[math.log(3.0)], [0.0]]]), zero)
    given = pair(
        ModelOutputs(zero[0], (), ours),
        ModelOutputs(zero[0], (), (zero, zero, zero)),
        torch.ones(1, 2, dtype=torch.int64),
    )
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert value("attention_relation", given) == pytest.approx(expected, rel=1e-5)


def test_padding_does_not_look_and_is_not_looked_at() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 0]])
    attention = tuple(torch.randn(1, 3, 4) for _ in range(3))
    changed = tuple(torch.cat([part[:, :2], torch.randn(1, 1, 4)], 1) for part in attention)
    given = pair(
        ModelOutputs(torch.zeros(1, 1), (), attention), ModelOutputs(torch.zeros(1, 1), (), changed), mask, heads=2
    )  # type: ignore[arg-type]
    assert value("attention_relation", given) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "hard_labels"])  # labels are no teacher
def test_a_student_like_its_teacher_loses_nothing(name: str) -> None:
    torch.manual_seed(0)
    view = ModelOutputs(torch.randn(4, 6), (torch.randn(4, 5, 6),), (torch.randn(4, 5, 6),) * 3)
    assert value(name, pair(view, view, torch.ones(4, 5, dtype=torch.int64))) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["similarity", "neighbours"])
def test_batch_wide_losses_are_the_mean_over_processes(name: str) -> None:
    """Two processes of two rows each, against one process of four."""
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    alone = value(name, pair(ModelOutputs(student), ModelOutputs(teacher)))
    parts = []
    for process in range(2):
        rows = slice(2 * process, 2 * process + 2)
        known = {
            float(values[rows][0, 0]): values
            for values in (torch.nn.functional.normalize(all_rows, dim=-1) for all_rows in (student, teacher))
        }
        gather = lambda own, known=known: known[float(own[0, 0])]  # noqa: E731  # what the other process would add
        parts.append(
            value(name, pair(ModelOutputs(student[rows]), ModelOutputs(teacher[rows]), gather=gather, process=process))
        )
    assert sum(parts) / 2 == pytest.approx(alone, rel=1e-5)
