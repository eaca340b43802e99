"""Does a bundle do here what it did where it was made? Its files, and its golden outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.bundle.golden import Golden, golden_arrays, read_golden
from pipeline.bundle.manifest import read_manifest
from pipeline.bundle.records import read_metadata, require_runtime
from pipeline.core.errors import IntegrityError, StageError, first_line
from pipeline.devices.runner import Runner, subject_of
from pipeline.devices.runner_session import RunnerSession
from pipeline.runtime.session import SESSION_ERRORS, make_session
from pipeline.runtime.states import run_rows


def verify(bundle: str | Path, runner: Runner | None = None) -> float:
    """Check the bundle's manifest and the sha256 of every file, load every graph, and run the golden inputs: here, or
    where `runner` is.

    Returns the largest difference from the golden outputs, as a share of the largest expected value. UsageError if
    a file is missing, added, changed or of another kind; IntegrityError if the files do not fit together; StageError
    if the difference is beyond the bundle's tolerance. It raises nothing else, whatever the folder holds.
    """
    folder = Path(bundle)
    read_manifest(folder)
    require_runtime(folder)
    metadata = read_metadata(folder)
    runtime = metadata.session_runtime()
    try:
        if runner is None:
            sessions = [make_session(graphs, runtime) for graphs in metadata.variants(folder)]
        else:
            subjects = [subject_of(graphs, Path(), runtime) for graphs in metadata.variants(folder)]
            sessions = [RunnerSession(runner, subject) for subject in subjects]
        return require_golden(folder, sessions, f"The bundle {folder.name}")
    except SESSION_ERRORS as error:
        message = f"ONNX Runtime cannot run the golden samples of the bundle {folder.name}: {first_line(error)}"
        raise IntegrityError(message, "Compare the ONNX Runtime versions, or export it again.") from error


def require_golden(folder: Path, sessions: Sequence[ort.InferenceSession], what: str) -> float:
    """The largest difference of the sessions' answers from the golden outputs of the bundle in `folder`; StageError,
    which begins with `what`, if that is more than the bundle allows."""
    golden = read_golden(folder)
    found = [worst for session in sessions for worst in golden_differences(folder, golden, session)]
    worst = float(np.max([0.0, *found]))  # NaN if one is
    if not worst <= golden.tolerance:
        raise StageError(
            f"{what} gives other outputs here than where it was made: they differ by {worst:.3g} of the largest "
            f"value, {golden.tolerance} is allowed.",
            "Compare the CPU's instruction sets and the ONNX Runtime versions.",
        )
    return worst


def golden_differences(folder: Path, golden: Golden, session: ort.InferenceSession) -> list[float]:
    """For each golden sample of the bundle in `folder`, the largest difference of the session's answers."""
    names = [entry.name for entry in golden.outputs]
    worst = []
    feeds = ((True, golden_arrays(folder, number, golden.inputs)) for number in range(golden.samples))
    for number, (_, answers) in enumerate(run_rows(session, names, feeds)):
        expected = golden_arrays(folder, number, golden.outputs)
        worst.append(float(np.max([0.0, *(difference(answers[name], expected[name]) for name in names)])))
    return worst


def difference(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference as a share of the largest expected value; 0 if all are equal (NaN to NaN), infinity for
    another shape, for anything beside expected zeros and where only one is finite."""
    if not isinstance(actual, np.ndarray) or actual.shape != expected.shape or actual.dtype.kind not in "biuf":
        return float("inf")
    if np.array_equal(actual, expected, equal_nan=expected.dtype.kind == "f" and actual.dtype.kind == "f"):
        return 0.0
    one, other = actual.astype(np.float64), expected.astype(np.float64)
    if not (np.isfinite(one) == np.isfinite(other)).all() or not np.isfinite(other).any():
        return float("inf")
    finite = np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return float("inf")
    peak = float(np.abs(other[finite]).max())
    return float(np.abs(one[finite] - other[finite]).max()) / peak if peak else float("inf")
