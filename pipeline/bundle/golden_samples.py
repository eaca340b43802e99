"""Which evaluation samples go into a bundle as golden ones, what it answers, and what another CPU may."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import accumulate, zip_longest
from pathlib import Path

import onnxruntime as ort

from pipeline.bundle.golden import MOST, TOLERANCE, write_golden
from pipeline.bundle.verify import difference
from pipeline.config.target import Runtime
from pipeline.core.model_spec import ModelSpec
from pipeline.data.raw import raw_file
from pipeline.data.samples import DATASET, Row, open_samples
from pipeline.devices.runner_session import RunnerSession
from pipeline.devices.worker import Feed, fitting, kept_dtypes
from pipeline.graph.files import Graphs
from pipeline.runtime.session import make_session
from pipeline.runtime.states import run_rows

GOLDEN_SAMPLES, GOLDEN_BYTES = 4, 1_000_000
"""Fewer where they are large, as those of images are: what an app downloads is to be the model (four pages of a
detector took 29 MB beside a model of 2)."""
_BEGINNING = 16
"""Tokens of the golden samples of a language model, whose outputs are as many rows of its vocabulary."""
_IN_FLOAT = {"session.disable_quant_qdq": "1"}
"""ONNX Runtime then computes quantized products in float, between the same roundings."""


def make_golden(
    out: Path, model: Graphs, evaluation: Path, runtime: Runtime, spec: ModelSpec, also: Sequence[RunnerSession] = ()
) -> None:
    """Write `golden/` of the bundle `out`: the first samples of the set in `evaluation`, what `model` answers, and the
    texts, images or recordings that they came from. `spec`: its source; `also`: sessions of it on CPUs or NPUs of other
    kinds, whose answers are as good."""
    samples = _answered(model, evaluation, runtime, spec)
    raw = _raw(evaluation, len(samples))
    kept = _as_many_as_fit([_bytes(sample, file) for sample, file in zip_longest(samples, raw)])
    samples = samples[:kept]
    write_golden(out, samples, texts_of(evaluation), _tolerance(model, runtime, samples, also), raw[:kept])


def _answered(model: Graphs, evaluation: Path, runtime: Runtime, spec: ModelSpec) -> list[tuple[Feed, Feed]]:
    """Samples and what the model answers. Its session ends here: another one would have all weights once more."""
    session = make_session(model, runtime)
    names = [entry.name for entry in session.get_inputs()]
    outputs = [entry.name for entry in session.get_outputs()]
    rows = open_samples(evaluation, GOLDEN_SAMPLES).select(names)
    if spec.language is not None:
        rows, outputs = map(_beginning, rows), outputs[:1]
    fed = [fitting(kept_dtypes(session), row) for row in rows]
    if spec.language is not None and len(fed) > 1:
        fed[-1] = _continued(session, fed[-1])
    return [(row, dict(zip(outputs, session.run(outputs, row), strict=True))) for row in fed]


def _beginning(row: Row) -> Row:
    return {name: array[:, :_BEGINNING] if array.ndim == 2 else array for name, array in row.items()}


def _continued(session: ort.InferenceSession, row: Row) -> Row:
    """The last token of a text behind the keys and values of those before: attention to single tokens may be another
    kernel, or another part of the graph. A text of one token as it is."""
    if row["input_ids"].shape[1] < 2:
        return row
    before = {name: array[:, :-1] if array.ndim == 2 else array for name, array in row.items()}
    present = session.run([entry.name for entry in session.get_outputs()[1:]], before)
    past = [name for name, array in row.items() if array.ndim == 4]
    return row | {"input_ids": row["input_ids"][:, -1:], **dict(zip(past, present, strict=True))}


def texts_of(evaluation: Path) -> list[str]:
    """The texts that the first samples came from; empty where they came from something else, or were invented."""
    if not (evaluation / DATASET).is_file():
        return []
    return list(json.loads((evaluation / DATASET).read_text(encoding="utf-8"))["texts"])


def _raw(evaluation: Path, count: int) -> list[Path]:
    """The images or recordings that the first samples came from; none if the first one is too large to ship."""
    found = [file for number in range(count) if (file := raw_file(evaluation, number))]
    return found if found and found[0].stat().st_size <= GOLDEN_BYTES else []


def _bytes(sample: tuple[Feed, Feed], raw: Path | None) -> int:
    """Of a golden sample's files."""
    arrays = sum(array.nbytes for feed in sample for array in feed.values())
    return arrays + (raw.stat().st_size if raw else 0)


def _as_many_as_fit(sizes: Sequence[int]) -> int:
    """How many golden samples go into `GOLDEN_BYTES`: one at least."""
    return max(1, sum(total <= GOLDEN_BYTES for total in accumulate(sizes)))


def _tolerance(
    model: Graphs, runtime: Runtime, samples: Sequence[tuple[Feed, Feed]], also: Sequence[RunnerSession]
) -> float:
    """Twice the difference where ONNX Runtime computes quantized products in float, and in the sessions `also`, in
    hundredths (see `TOLERANCE`)."""
    session = make_session(model, runtime.model_copy(update={"session_config": runtime.session_config | _IN_FLOAT}))
    found = [0.0]
    for each in (session, *also):
        answered = run_rows(each, [*samples[0][1]], ((True, row) for row, _ in samples)) if samples else ()
        for (_, answers), (_, expected) in zip(answered, samples, strict=True):
            found += (difference(answers[name], value) for name, value in expected.items())
    return min(MOST, max(TOLERANCE, math.ceil(200 * max(found)) / 100))
