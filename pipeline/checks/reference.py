"""Stage function: the float model's outputs on the evaluation sets, kept so that a second check need not run it."""

from __future__ import annotations

import numpy as np

from pipeline.core.stage import StageContext, StageMetadata
from pipeline.data.samples import evaluation_folders, open_samples, read_dataset
from pipeline.graph.files import graphs_in
from pipeline.runtime.behaviour import behaviour_in
from pipeline.runtime.infer import judged_outputs
from pipeline.runtime.session import parallel_float_session

_BATCH = 16


def run(context: StageContext) -> StageMetadata:
    """Writes `<number>.npy` with the rows that are judged, for each evaluation set: the answers to samples
    that run alone. Samples of one shape run together where the stage `probe` found that this gives the same."""
    behaviour = behaviour_in(context.inputs)
    session = parallel_float_session(graphs_in(context.inputs["float"].path))
    folders = evaluation_folders(context.inputs["evaluation"].path)
    batch = _BATCH if behaviour.independent else 1
    for folder in folders:
        samples = open_samples(folder)
        outputs = judged_outputs(session, samples, context.progress, behaviour.kind, batch=batch)
        np.save(context.out / f"{folder.name}.npy", outputs)
    return {"sets": [read_dataset(folder)["name"] for folder in folders]}
