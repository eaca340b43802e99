"""Judging plain modules: whatever they give, the first tensor counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.compress.shared.fidelity_trial import judged

ROWS = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


class Gives(nn.Module):
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, **_: Tensor) -> Any:
        return self.output


@pytest.mark.parametrize("output", [ROWS, (ROWS, ROWS + 1), [None, ROWS], {"scores": ROWS}, {"logits": ROWS}])
def test_the_first_tensor_is_judged(output: Any) -> None:
    assert torch.equal(judged(Gives(output), {"x": ROWS}, "embedding"), ROWS)


def test_all_floats_are_judged_of_outputs_that_are_compared_whole() -> None:
    given = (ROWS, [torch.tensor([[7], [8]]), ROWS[:, None] + 1])
    assert judged(Gives(given), {"x": ROWS}, "generic").tolist() == [[1, 2, 2, 3], [3, 4, 4, 5]]


def test_token_states_become_their_mean() -> None:
    states = torch.tensor([[[1.0], [3.0], [101.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert judged(Gives({"last_hidden_state": states}), {"attention_mask": mask}, "embedding").tolist() == [[2.0]]
    assert judged(Gives(states), {"x": ROWS}, "embedding").tolist() == [[35.0]]
