"""What of a PyTorch model's outputs is judged: what the kind of output takes of a graph's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_specs import factory
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.compress.shared.fidelity_trial import CandidateEvaluator
from pipeline.compress.shared.forward import at_once, judged, judged_rows, judged_samples
from pipeline.core.model_spec import LanguageSpec
from pipeline.core.types import Scheme
from pipeline.data.samples import open_samples, write_samples
from pipeline.metrics.fidelity import Array
from pipeline.tasks.embedding import Vectors
from pipeline.tasks.output_kind import Arrays, Judgement, Output
from pipeline.tasks.registry import OUTPUTS

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


def test_a_whole_batchs_outputs_are_judged_as_a_graphs() -> None:
    """Token states of two texts, one of them padded: the mean of each, float32 once they are joined."""
    kind = OUTPUTS.get("embedding")
    states = torch.arange(12.0).reshape(2, 3, 2)
    batch = {"input_ids": torch.ones(2, 3, dtype=torch.int64), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    rows = kind.join(judged_rows(Gives({"last_hidden_state": states}), batch, kind))
    assert (rows.dtype, rows.tolist()) == (np.float32, [[2.0, 3.0], [7.0, 8.0]])


def test_outputs_of_a_detector_stand_beside_each_other() -> None:
    boxes, logits = torch.ones(2, 5, 4), torch.zeros(2, 5, 3)
    model, kind = Gives({"pred_boxes": boxes, "logits": logits}), OUTPUTS.get("detector")
    rows = kind.join(judged_rows(model, {"x": ROWS}, kind))
    assert rows.shape == (2, 5, 7)
    np.testing.assert_array_equal(judged(model, {"x": ROWS}, "detector").numpy(), rows)


class Signs(Vectors):
    """A package's kind: signs, of the output `value` alone."""

    name = "signs"

    def judged(self, offered: Sequence[Output]) -> list[str]:
        return [output.name for output in offered if output.name == "value"]

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:  # noqa: ARG002
        return np.sign(outputs["value"])

    def fidelity(self, reference: Array, other: Array) -> Judgement:
        wrong = float(np.mean(reference != other))
        return Judgement({"signs": 1 - wrong}, "signs", 100 * wrong)


class Two(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.factor * x + 1, "value": self.factor * x}


@pytest.mark.parametrize(("factor", "drop"), [(0.5, 0.0), (-1.0, 100.0)])
def test_candidates_are_judged_by_the_kind_of_a_package(
    factor: float, drop: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own choice of outputs and its own rows, whatever the outputs are called."""
    known = OUTPUTS.get
    monkeypatch.setattr(OUTPUTS, "get", lambda name: Signs() if name == "signs" else known(name))
    write_samples(tmp_path, [{"x": np.array([[1, -2, 3]], np.float32)}, {"x": np.array([[-4, 5, 6]], np.float32)}])
    trial = CandidateEvaluator(Two(1.0), factory(family="signs"), Scheme(name="fp32"), open_samples(tmp_path))
    assert trial.score(Two(factor)).judgement == Judgement({"signs": 1 - drop / 100}, "signs", drop)


LANGUAGE = LanguageSpec(layers=1, heads=1, size=4, queries=1, hidden=4, vocabulary=2**20, longest=64)


def test_every_token_of_a_language_model_is_judged() -> None:
    logits = torch.arange(12.0).reshape(2, 2, 3)
    mask = torch.tensor([[1, 1], [1, 0]])
    found = judged(Gives({"logits": logits}), {"attention_mask": mask}, "language_model")
    assert found.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_large_vocabularies_run_and_are_judged_in_fewer_samples() -> None:
    """Of 2**26 logits at once, and of 100 tokens that are judged."""
    spec = factory(family="language_model", language=LANGUAGE, head={"tokens": 100, "every": 1})
    assert at_once(spec, [16, 8]) == 4
    assert at_once(spec, [4096]) == 1
    assert at_once(factory(), [4096]) == 32
    assert judged_samples(spec, [40, 40, 40]) == 2
    assert judged_samples(spec, [400]) == 1
    assert judged_samples(factory(), [400, 400]) == 2
