"""Judging a candidate model in PyTorch before it is exported: rounded weights, calibration samples, fidelity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pipeline.compress.shared.fake_quant import round_weights
from pipeline.compress.shared.forward import all_rows, at_once, batches, judged_samples, sizes_of
from pipeline.core.model_spec import ModelSpec
from pipeline.core.types import Json, Scheme
from pipeline.data.samples import Samples
from pipeline.tasks.output_kind import Judgement
from pipeline.tasks.registry import OUTPUTS, of_width


@dataclass(frozen=True)
class CandidateScore:
    """A candidate's fidelity to the float model and the estimated megabytes of its weights. `limits`: the score that
    each budget beside the drop is held against, as the gate's judge has it."""

    judgement: Judgement
    megabytes: float
    limits: Mapping[str, str] = field(default_factory=dict)

    def within(self, limits: dict[str, float]) -> bool:
        """Does it meet every limit that its judge speaks of?"""
        scores = self.judgement.scores
        return self.judgement.drop <= limits.get("max_accuracy_drop", np.inf) and all(
            scores[score] >= limits.get(budget, -np.inf) for budget, score in self.limits.items()
        )

    def record(self) -> dict[str, Json]:
        return {
            "megabytes": round(self.megabytes, 3),
            "drop": round(self.judgement.drop, 4),
            "scores": {name: round(value, 5) for name, value in self.judgement.scores.items()},
        }


class CandidateEvaluator:
    """Scores candidates made from one float model, against that model's outputs on the same samples.

    Only weights are rounded, as the scheme says; activation rounding needs the exported graph and is measured
    after it.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: ModelSpec,
        scheme: Scheme,
        samples: Samples,
        source_samples: Samples | None = None,
        together: bool = True,
    ) -> None:
        """`source_samples`: the same samples as `model` takes them, where candidates have another tokenizer.
        `together`: whether samples may run in padded batches, which must not change the model's answers."""
        self._spec = spec
        self._scheme = scheme
        self._kind = OUTPUTS.get(spec.family).bound((), spec.head)
        sizes = sizes_of(samples)
        size = at_once(spec, sizes) if together and not self._kind.whole else 1
        if (count := judged_samples(spec, sizes)) < len(samples):
            samples = samples.part(range(count))
        self._batches = list(batches(source_samples or samples, size))
        self._reference = self._outputs(model)
        self._judge = of_width(self._kind, self._reference.shape[-1])
        self._batches = list(batches(samples, size)) if source_samples else self._batches

    def score(self, candidate: nn.Module) -> CandidateScore:
        """Round the candidate's weights in place, run it, and compare."""
        megabytes = round_weights(candidate, self._scheme) / 1e6
        judgement = self._judge.fidelity(self._reference, self._outputs(candidate))
        return CandidateScore(judgement, megabytes, self._judge.limits)

    def _outputs(self, model: nn.Module) -> NDArray[Any]:
        return all_rows(model, self._spec, self._batches, self._kind)
