"""How well a candidate's accuracy is known: groups of samples that are left out."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.checks.accuracy import Outputs, compare, samples_of_rows
from pipeline.comparison.candidates import GROUPS, _scored, _without_each_group, _worst_drop, group_masks
from pipeline.tasks.registry import OUTPUTS

CLASSES = OUTPUTS.get("classifier")
TOKENS = OUTPUTS.get("tokens")
VECTORS = OUTPUTS.get("embedding")


def dataset(pairs: bool = False, labels: list[object] | None = None) -> dict[str, object]:
    return {"name": "set", "pairs": pairs, "labels": labels}


def test_every_row_is_left_out_once() -> None:
    masks = list(group_masks(CLASSES, dataset(), 25))
    assert len(masks) == GROUPS
    assert (np.sum([~rows for rows in masks], axis=0) == 1).all()
    assert np.flatnonzero(~masks[3]).tolist() == [3, 13, 23]


def test_a_pair_goes_with_both_its_rows() -> None:
    pairs = dataset(pairs=True, labels=[0.0] * 30)
    samples = next(group_masks(VECTORS, pairs, 60))
    assert np.flatnonzero(~samples).tolist() == [0, 10, 20]
    assert np.flatnonzero(~samples[samples_of_rows(VECTORS, pairs, 60)]).tolist() == [0, 10, 20, 30, 40, 50]


def test_a_labelled_sample_of_tokens_goes_with_all_its_rows() -> None:
    labels: list[object] = [[1, 2], *([[1]] * 19)]
    samples = next(group_masks(TOKENS, dataset(labels=labels), 21))
    assert np.flatnonzero(~samples).tolist() == [0, 10]
    assert np.flatnonzero(~samples[samples_of_rows(TOKENS, dataset(labels=labels), 21)]).tolist() == [0, 1, 11]


def test_tokens_of_unknown_samples_go_in_stretches() -> None:
    stretches = samples_of_rows(TOKENS, dataset(), 1000)
    masks = list(group_masks(TOKENS, dataset(), 1000))
    assert np.flatnonzero(~masks[2][stretches])[:20].tolist() == [*range(20, 30), *range(120, 130)]


@pytest.mark.parametrize(("family", "rows"), [("classifier", 19), ("embedding", 24)])
def test_a_set_too_small_for_it_has_no_groups(family, rows) -> None:
    assert list(group_masks(OUTPUTS.get(family), dataset(), rows)) == []


def test_the_drop_without_each_group_by_hand() -> None:
    """40 samples, of which 4 change their class, all in group 0 (0, 10, 20, 30): a drop of 4/40; without group 0 none,
    without any other 4 of 36."""
    reference = np.tile(np.float32([1, 0]), (40, 1))
    outputs = reference.copy()
    outputs[::10] = [0, 1]
    parts = [*_without_each_group(CLASSES, dataset(), reference, Outputs(outputs))]
    scored = _scored(CLASSES, [compare(CLASSES, dataset(), reference, outputs)], [parts], _worst_drop)
    assert scored.drop.value == pytest.approx(10.0)
    assert scored.drop.replicates == pytest.approx((0.0, *[100 * 4 / 36] * 9))
    assert scored.fidelity is not None
    assert scored.fidelity.replicates == pytest.approx((1.0, *[32 / 36] * 9))


def test_a_small_set_stays_whole_beside_a_large_one() -> None:
    reference = np.tile(np.float32([1, 0]), (40, 1))
    whole = compare(CLASSES, dataset(), reference, reference)
    worst = whole.model_copy(update={"drop": 5.0, "scores": {"agreement": 0.95}})
    parts = [[*_without_each_group(CLASSES, dataset(), reference, Outputs(reference))], []]
    scored = _scored(CLASSES, [whole, worst], parts, _worst_drop)
    assert scored.drop.replicates == (5.0,) * GROUPS
    assert _scored(CLASSES, [worst], [[]], _worst_drop).drop.replicates == ()
