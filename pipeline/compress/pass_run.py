"""A pass at work: the model as the passes before left it, calibration samples, and the result with its report."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import nn

from pipeline.compress import CALIBRATION, SOURCE_CALIBRATION
from pipeline.compress.compressed_model import Compressed, load_compressed, save_compressed
from pipeline.compress.edits import replay
from pipeline.compress.edits.hf_config import update_config
from pipeline.compress.passes import pass_report
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.compress.shared.cost import parameters
from pipeline.compress.shared.fidelity_trial import CandidateEvaluator
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Json, Scheme
from pipeline.data.samples import open_samples
from pipeline.runtime.behaviour import may_pad
from pipeline.source.torch_model import load_source

Edits = list[dict[str, Any]]


class PassRun:
    """What the stage functions of all passes do. `calibration` and `evaluator` need `Needs.calibration`."""

    def __init__(self, context: StageContext) -> None:
        self.context = context

    @property
    def config(self) -> dict[str, Json]:
        """What the recipe gives the pass."""
        return self.context.config["pass"]

    @cached_property
    def before(self) -> Compressed:
        """The model as it comes; a pass that changes it in place takes a copy."""
        return load_compressed(self.context.model, self.context.inputs)

    @property
    def model(self) -> nn.Module:
        return self.before.model

    def calibration(self, samples: int, seed: int, model: nn.Module | None = None) -> CalibrationData:
        """The first `samples` calibration samples, beside the model or what a pass has made of it so far."""
        context = self.context
        found = open_samples(context.inputs[CALIBRATION].path, samples)
        return CalibrationData(model or self.model, context.model, found, seed, context.progress)

    def evaluator(self, samples: int, role: str = CALIBRATION) -> CandidateEvaluator:
        """Judges against the uncompressed model, so that the damage of passes in a row adds up. `role`: the samples as
        the candidates take them."""
        context, inputs = self.context, self.context.inputs
        original = inputs.get(SOURCE_CALIBRATION)
        return CandidateEvaluator(
            load_source(context.model),
            spec=context.model,
            scheme=Scheme.model_validate(context.config["scheme"]),
            samples=open_samples(inputs[role].path, samples),
            source_samples=open_samples(original.path, samples) if original else None,
            together=may_pad(inputs),
        )

    def edited(self, edits: Edits) -> nn.Module:
        """A copy of the model with further edits."""
        return replay(copy.deepcopy(self.model), edits)

    def hf_config(self, model: nn.Module, edits: Edits) -> dict[str, Json]:
        """What the config of `model` says after these further edits, as far as it can."""
        return update_config(model, [*self.before.edits, *edits])

    def save(self, model: nn.Module, edits: Sequence[dict[str, Any]] = (), trained: bool = False) -> None:
        """Write `edits.json`, with all edits so far, and `weights.safetensors` once any pass has `trained`: changed
        values beside those that its edits drop."""
        save_compressed(self.context.out, model, [*self.before.edits, *edits], trained=trained or self.before.trained)

    def report(
        self, name: str, model: nn.Module, samples: int | None, before: str = CALIBRATION, /, **said: Json
    ) -> StageMetadata:
        """What the pass did: parameters of the model before and after, the metric of both on so many calibration
        samples if it looks at any, and what else is `said`. Neither model is changed.

        `before`: the role of the samples as the model before takes them.
        """
        scores = {}
        if samples is not None:
            evaluator = self.evaluator(samples)
            evaluator_before = evaluator if before == CALIBRATION else self.evaluator(samples, before)
            scores = {
                "metric_before": evaluator_before.score(copy.deepcopy(self.model)).record(),
                "metric_after": evaluator.score(copy.deepcopy(model)).record(),
            }
        counts = {"parameters_before": parameters(self.model), "parameters_after": parameters(model)}
        return pass_report(name, **counts, **scores, **said)
