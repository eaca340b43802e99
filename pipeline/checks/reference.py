"""Stage function: the float model's outputs on the evaluation sets, kept so that a second check need not run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.artifact import Artifact
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.data.samples import evaluation_folders, open_samples, read_dataset
from pipeline.graph.files import graphs_in
from pipeline.runtime.behaviour import PROBE, Behaviour, behaviour_in
from pipeline.runtime.infer import judged_outputs
from pipeline.runtime.session import parallel_session

_BATCH = 16


@dataclass(frozen=True)
class FloatReference:
    """Where the uncompressed float model and its outputs on the evaluation sets are (artifact folders).

    `evaluation`: the samples as the bundle takes them; `source_evaluation`: as the float model does, which has another
    tokenizer where the bundle's vocabulary was trimmed. `behaviour`: how the float model answers.
    """

    float_model: Path
    evaluation: Path
    reference: Path
    source_evaluation: Path
    behaviour: Behaviour

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


def run(context: StageContext) -> StageMetadata:
    """Writes `<number>.npy` with the rows that are judged, for each evaluation set: the answers to samples
    that run alone. Samples of one shape run together where the stage `probe` found that this gives the same."""
    behaviour = behaviour_in(context.inputs)
    session = parallel_session(graphs_in(context.inputs["float"].path))
    folders = evaluation_folders(context.inputs["evaluation"].path)
    batch = _BATCH if behaviour.independent else 1
    for folder in folders:
        samples = open_samples(folder)
        outputs = judged_outputs(session, samples, context.progress, behaviour.kind, batch=batch)
        np.save(context.out / f"{folder.name}.npy", outputs)
    return {"sets": [read_dataset(folder)["name"] for folder in folders]}
