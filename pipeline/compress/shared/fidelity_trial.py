"""Judging a candidate model in PyTorch before it is exported: rounded weights, calibration samples, fidelity."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.compress import CALIBRATION, SOURCE_CALIBRATION
from pipeline.compress.prune.units import parameters
from pipeline.compress.shared.forward import BATCH, batches, judged_rows
from pipeline.core.model_spec import ModelSpec
from pipeline.core.stage import StageContext
from pipeline.core.types import Json, Scheme
from pipeline.data.samples import Samples, open_samples
from pipeline.formats.format import TensorClass
from pipeline.formats.scheme import SchemeFormats
from pipeline.runtime.behaviour import may_pad
from pipeline.source.torch_model import load_source, wrap
from pipeline.tasks.output_kind import Judgement
from pipeline.tasks.registry import OUTPUTS, of_width


@dataclass(frozen=True)
class TrialScore:
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


class TrialModel:
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
        size = BATCH if together and not self._kind.whole else 1
        self._batches = list(batches(source_samples or samples, size))
        self._reference = self._outputs(model)
        self._judge = of_width(self._kind, self._reference.shape[-1])
        self._batches = list(batches(samples, size)) if source_samples else self._batches

    def score(self, candidate: nn.Module) -> TrialScore:
        """Round the candidate's weights in place, run it, and compare."""
        megabytes = round_weights(candidate, self._scheme) / 1e6
        judgement = self._judge.fidelity(self._reference, self._outputs(candidate))
        return TrialScore(judgement, megabytes, self._judge.limits)

    def _outputs(self, model: nn.Module) -> NDArray[Any]:
        wrapped = wrap(model, self._spec)
        return self._kind.join([rows for batch in self._batches for rows in judged_rows(wrapped, batch, self._kind)])


def make_trial(context: StageContext, samples: int, role: str = CALIBRATION) -> TrialModel:
    """Judges against the uncompressed model, so that the damage of passes in a row adds up. `role`: the samples as the
    candidates take them."""
    inputs = context.inputs
    original = inputs.get(SOURCE_CALIBRATION)
    return TrialModel(
        load_source(context.model),
        spec=context.model,
        scheme=Scheme.model_validate(context.config["scheme"]),
        samples=open_samples(inputs[role].path, samples),
        source_samples=open_samples(original.path, samples) if original else None,
        together=may_pad(inputs),
    )


def pass_facts(trial: TrialModel, before: nn.Module, after: nn.Module) -> dict[str, Json]:
    """What every pass reports: parameters and metric, before and after it. Neither model is changed."""
    return {
        "parameters_before": parameters(before),
        "parameters_after": parameters(after),
        "metric_before": trial.score(copy.deepcopy(before)).record(),
        "metric_after": trial.score(copy.deepcopy(after)).record(),
    }


def round_weights(model: nn.Module, scheme: Scheme) -> int:
    """Replace the weights of Linear and Embedding modules by what `scheme` can store; returns the bytes that the
    whole model then takes. Each value goes to the nearest code, also where the scheme says GPTQ, which needs the
    exported graph: its bytes are the same, its scores better, so that the estimate is on the safe side."""
    formats = SchemeFormats(scheme)
    total = 0
    rounded: set[int] = set()
    for name, module in model.named_modules():
        op = _class_of(module)
        if op is None:
            continue
        weight = module.weight.detach().numpy()
        weight = weight.T if op == "linear" else weight
        form = formats.of_module(op, name)
        if form.leaves(op, weight):
            continue
        values, size = form.round(op, weight)
        module.weight.data = torch.from_numpy(np.ascontiguousarray(values.T if op == "linear" else values))
        total += size
        rounded.add(id(module.weight))
    return total + sum(p.numel() * 4 for p in model.parameters() if id(p) not in rounded)


def _class_of(module: nn.Module) -> TensorClass | None:
    if isinstance(module, nn.Linear):
        return "linear"
    return "table" if isinstance(module, nn.Embedding) else None
