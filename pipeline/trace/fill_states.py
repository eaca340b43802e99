"""Stage function: the states that a streaming model's float graph gives the steps of its samples, so that each step can
run by itself where calibration looks at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnxruntime as ort

from pipeline.core.errors import UsageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Progress
from pipeline.data.samples import DATASET, INDEX, Row, Samples, open_samples, write_samples
from pipeline.graph.files import graphs_in
from pipeline.runtime.session import parallel_float_session
from pipeline.runtime.states import run_in_order

STEPS = "steps"
"""The role, in a stage's inputs, of samples whose states are not known yet."""


def run(context: StageContext) -> StageMetadata:
    """Writes the samples of one set, or a folder of them per evaluation set; the metadata stay."""
    steps = context.inputs[STEPS]
    session = parallel_float_session(graphs_in(context.inputs["float"].path))
    if (steps.path / INDEX).is_file():
        _fill(session, steps.path, context.out, context.progress)
    for folder in sorted(path for path in steps.path.iterdir() if path.is_dir()):
        (out := context.out / folder.name).mkdir()
        _fill(session, folder, out, context.progress)
    return dict(steps.metadata)


def _fill(session: ort.InferenceSession, folder: Path, out: Path, progress: Progress) -> None:
    samples = open_samples(folder)
    _require(samples.states, [entry.name for entry in session.get_outputs()])
    write_samples(out, _filled(session, samples, progress), samples.states, samples.sequences)
    if (folder / DATASET).is_file():
        (out / DATASET).write_bytes((folder / DATASET).read_bytes())


def _filled(session: ort.InferenceSession, samples: Samples, progress: Progress) -> Iterator[Row]:
    for done, (row, _) in enumerate(run_in_order(session, samples, ()), start=1):
        progress(done, len(samples))
        yield row


def _require(states: Mapping[str, str], outputs: Sequence[str]) -> None:
    for name, output in states.items():
        if output not in outputs:
            raise UsageError(
                f"The recipe says that {output!r} is the next value of the input {name!r}; the model has the outputs "
                f"{', '.join(outputs)}.",
                f"Correct [inputs.{name}] next.",
            )
