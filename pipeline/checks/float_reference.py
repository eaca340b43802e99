"""The float model that a bundle is held against: where it and its outputs on the evaluation sets are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.artifact import Artifact
from pipeline.core.report_types import DatasetAccuracy, ExactMatch, QuantizationCheck, RangeCheck, WrittenTexts
from pipeline.core.types import Figure, StrictModel
from pipeline.runtime.behaviour import PROBE, Behaviour, behaviour_in

Tried = dict[str, dict[str, DatasetAccuracy]]
"""Evaluation set -> a model that must fail, in words -> what became of it there."""


class Facts(StrictModel):
    """What an export knew, for a machine that has the float model's outputs and not the model.

    Attributes:
        behaviour: How the float model answers.
        megabytes: Of the float model.
        speedup: The bundle's over the float model, as the export measured it on `cpu`.
        tried: What became of models with destroyed weights (see `checks.decides`).
        quantization: What the stage `compare` found, if there was one.
        ranges: What the stage `outside` found, if there was one.
        texts: What the stage `texts` found, of a language model.
        exact_match: What the stage `exact_match` found, of a language model and sets with problems.
    """

    behaviour: Behaviour
    megabytes: float
    speedup: Figure | None
    cpu: str
    tried: Tried
    quantization: QuantizationCheck | None
    ranges: RangeCheck | None
    texts: WrittenTexts | None = None
    exact_match: tuple[ExactMatch, ...] = ()


@dataclass(frozen=True)
class FloatReference:
    """Where the uncompressed float model and its outputs on the evaluation sets are (artifact folders).

    `evaluation`: the samples as the bundle takes them; `source_evaluation`: as the float model does, which has another
    tokenizer where the bundle's vocabulary was trimmed. `behaviour`: how the float model answers. Where the float model
    itself is not here (`float_model` is None), `facts` has what the export knew of it.
    """

    float_model: Path | None
    evaluation: Path
    reference: Path
    source_evaluation: Path
    behaviour: Behaviour
    facts: Facts | None = None

    @property
    def megabytes(self) -> float:
        """Of the float model: its graphs and their weights."""
        if self.float_model is not None:
            return sum(file.stat().st_size for file in self.float_model.glob("*.onnx*")) / 1e6
        return self.facts.megabytes if self.facts else 0.0

    @classmethod
    def of_export(cls, made: Mapping[str, Artifact]) -> FloatReference:
        """Of an export whose stages made these, by name."""
        tokenized = [name for name in made if name.startswith("samples.evaluation.")]  # for a trimmed vocabulary
        evaluation = "samples.evaluation"
        own, reference = made[tokenized[-1] if tokenized else evaluation].path, made["reference"].path
        return cls(made["trace.float"].path, own, reference, made[evaluation].path, behaviour_in(made))

    @classmethod
    def stored(cls, inputs: Mapping[str, Artifact], source_evaluation: str) -> FloatReference | None:
        """Of a bundle that was made of these, by role; None if the store lacks one."""
        roles = ("float", "evaluation", "reference", source_evaluation)
        if any(role not in inputs for role in (*roles, PROBE)):
            return None
        of_float, evaluation, reference, source = (inputs[role].path for role in roles)
        return cls(of_float, evaluation, reference, source, behaviour_in(inputs))
