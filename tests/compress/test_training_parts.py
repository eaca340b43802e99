"""The parts of training that can be worked out by hand: rates, splits, batches, matched blocks, moved images."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_specs import factory
from torch import Tensor, nn

from pipeline.compress.edits.factorized import LowRankLinear
from pipeline.compress.training.data import LABELS, TrainingSet, batch_order, split_validation
from pipeline.compress.training.evaluate import Validation
from pipeline.compress.training.feature_hooks import block_names, kept_blocks, match_blocks
from pipeline.compress.training.lr_schedule import learning_rate_factor
from pipeline.compress.training.observed_model import ModelWithHooks, flip_shift, set_mode
from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.data.samples import DATASET, write_samples


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    factors = [learning_rate_factor(step, 10, 0.2) for step in range(10)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factors[6] == pytest.approx(0.5)  # half of the eight steps after the warm-up
    assert factors[9] == pytest.approx(0.5 * (1 + np.cos(np.pi * 7 / 8)))


@given(st.integers(20, 500), st.floats(0.05, 0.9))
def test_held_out_samples_are_never_trained_on(count: int, share: float) -> None:
    train, held = split_validation(count, share, 1)
    assert sorted([*train, *held]) == list(range(count))
    assert len(held) == round(count * share)


def test_too_little_to_judge_by() -> None:
    with pytest.raises(StageError, match=r"held_out = 0.02 of 100 training samples are 2 to judge by; at least 11 are"):
        split_validation(100, 0.02, 11)
    with pytest.raises(StageError, match="none would be left to train on"):
        split_validation(20, 0.99, 11)


def texts(folder: Path, lengths: list[int], labels: list[float] | None = None) -> TrainingSet:
    write_samples(folder, ({"input_ids": np.full((1, n), place)} for place, n in enumerate(lengths)))
    (folder / DATASET).write_text(pretty_json({"name": "t", "labels": labels, "samples": len(lengths)}))
    return TrainingSet(folder)


def test_batches_hold_every_sample_once_an_epoch_and_repeat_for_a_seed(tmp_path: Path) -> None:
    data = texts(tmp_path, [1 + n % 7 for n in range(40)])
    order = batch_order(data, range(40), 8, steps=10, seed=3)
    assert sorted(chain(*order[:5])) == sorted(chain(*order[5:])) == list(range(40))
    assert order == batch_order(data, range(40), 8, steps=10, seed=3)
    assert order != batch_order(data, range(40), 8, steps=10, seed=4)
    spread = [max(map(data.size, batch)) - min(map(data.size, batch)) for batch in order]
    assert max(spread) <= 2  # alike lengths are together


def test_a_batch_needs_enough_samples(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="3 training samples do not fill a batch of 4"):
        batch_order(texts(tmp_path, [1, 2, 3]), range(3), 4, 1, 0)


def test_batches_are_padded_and_labelled(tmp_path: Path) -> None:
    data = texts(tmp_path, [1, 3], [0.0, 2.0])
    batch = data.collate([data[0], data[1]])
    assert batch["input_ids"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert batch[LABELS].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("student", "teacher", "layers", "expected"),
    [
        (3, 6, "uniform", [1, 3, 5]),
        (2, 6, "last", [4, 5]),
        (4, 6, "uniform", [1, 2, 3, 5]),
        (2, 6, (0, 4), [0, 4]),
    ],
)
def test_matched_blocks(student: int, teacher: int, layers: object, expected: list[int]) -> None:
    assert match_blocks(student, teacher, layers) == expected  # type: ignore[arg-type]


def test_kept_blocks_stand_for_those_that_went_after_them() -> None:
    """Stack a keeps 0, 2 and 3 of five, then the first and last of these; stack b keeps all three."""
    blocks = [*(f"a.{n}" for n in range(5)), *(f"b.{n}" for n in range(3))]
    edits = [
        {"edit": "keep_layers", "stack": "a", "keep": [0, 2, 3]},
        {"edit": "keep_channels", "stack": "b"},
        {"edit": "keep_layers", "stack": "a", "keep": [0, 2]},
    ]
    assert kept_blocks(blocks, edits) == [("a.0", 2), ("a.1", 4), ("b.0", 5), ("b.1", 6), ("b.2", 7)]
    assert kept_blocks(["0", "1"], []) == [("0", 0), ("1", 1)]


def test_blocks_that_do_not_fit() -> None:
    with pytest.raises(StageError, match=r"layers = \[0, 6\] does not fit 2 student blocks and 6 teacher blocks"):
        match_blocks(2, 6, (0, 6))


def test_blocks_are_the_members_of_the_outermost_stacks() -> None:
    stage = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    model = nn.ModuleDict({"stem": nn.Linear(2, 2), "stage": stage, "blocks": nn.ModuleList([nn.Linear(2, 2)])})
    assert block_names(model) == ["stage.0", "stage.1", "blocks.0"]
    with pytest.raises(StageError, match="Linear has no stack of alike blocks"):
        block_names(nn.Linear(2, 2))


def test_a_factorized_layer_is_no_stack_of_blocks() -> None:
    pooler = LowRankLinear(nn.Linear(2, 2), 1)
    assert block_names(nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2)]), "pooler": pooler})) == ["blocks.0"]


class Blocks(nn.Module):
    """Two Linear blocks of `width`, and two outputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(3, width)
        self.blocks = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


@pytest.mark.parametrize(("width", "projections"), [(4, 0), (5, 2)])
def test_features_of_another_width_are_projected(width: int, projections: int) -> None:
    """The student's features reach the teacher's four values, through a learned layer only where they have another
    width; the layers are the same for the same seed and are no part of the model."""
    model = Blocks(width)
    students = [ModelWithHooks(model, factory(family="embedding"), block_names(model), False) for _ in range(2)]
    for student in students:
        student.project_to([4, 4], [width, width], seed=3)
    views = [student({"x": torch.ones(2, 3)}) for student in students]
    assert [tuple(value.shape) for value in views[0].features] == [(2, 4), (2, 4)]
    assert len(students[0].projections) == projections
    assert all(torch.equal(left, right) for left, right in zip(views[0].features, views[1].features, strict=True))
    assert not any("projections" in name for name in model.state_dict())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100))
def test_moved_images_show_the_same_picture(seed: int) -> None:
    """Of an image whose left half is 0 and right half 1, every row still rises or falls once."""
    images = torch.zeros(4, 1, 16, 16)
    images[..., 8:] = 1
    moved = flip_shift(images, seed)
    assert moved.shape == images.shape
    assert torch.equal(moved, flip_shift(images, seed))
    steps = moved.diff(dim=-1).abs().sum(-1)
    assert torch.equal(steps, torch.ones_like(steps))


@pytest.mark.parametrize(("mode", "follows"), [("train", True), ("frozen", False)])
def test_dropout_is_off_and_statistics_follow_only_if_asked(mode: str, follows: bool) -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(2))
    set_mode(model, mode)
    assert (model[0].training, model[1].training) == (False, follows)


class SpanLogits(nn.Module):
    """Logits of the first and the last token of an answer, which grow from place to place, times `scale`."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        places = torch.arange(input_ids.shape[1], dtype=torch.float32).expand(input_ids.shape) * self.scale
        return {"start_logits": places, "end_logits": places}


def test_students_are_judged_by_the_answers_that_are_deployed(tmp_path: Path) -> None:
    """Other logits with the same span are as good as the teacher's; those that turn the order around have another."""
    data, spec = texts(tmp_path, [4, 6, 5]), factory(family="span", data="text")
    held_out = Validation(data, [0, 1, 2], spec, torch.device("cpu"))
    held_out.set_reference(ModelWithHooks(SpanLogits(1.0), spec, [], attention=False))
    same = held_out.scores(ModelWithHooks(SpanLogits(3.0), spec, [], attention=False))
    assert same == {"score": 1.0, "span_f1_of_float": 1.0, "same_span": 1.0}
    turned = held_out.scores(ModelWithHooks(SpanLogits(-1.0), spec, [], attention=False))
    assert turned == {"score": 0.0, "span_f1_of_float": 0.0, "same_span": 0.0}
