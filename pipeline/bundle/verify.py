"""Does a bundle do here what it did where it was made? Its files, and its golden outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.bundle.manifest import read_manifest
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError
from pipeline.runtime.session import make_session
from pipeline.trace.graph import MODEL


def verify(bundle: str | Path) -> float:
    """Check every sha256 of the bundle's manifest, then run the golden inputs through ONNX Runtime.

    Returns the largest difference from the golden outputs, as a share of the largest expected value. UsageError if
    a file is missing or changed; StageError if the difference is beyond the bundle's tolerance.
    """
    folder = Path(bundle)
    read_manifest(folder)
    golden = json.loads((folder / "golden" / "golden.json").read_text(encoding="utf-8"))
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))["runtime"]
    runtime = Runtime(
        providers=tuple(metadata["providers"]),
        threads=metadata["threads"],
        session_config=metadata["session_config"],
    )
    session = make_session(folder / MODEL, runtime)
    worst = 0.0
    for number in range(golden["samples"]):
        place = folder / "golden" / str(number)
        feed = {name: np.load(place / f"{name}.npy", allow_pickle=False) for name in golden["inputs"]}
        for name, actual in zip(golden["outputs"], session.run(golden["outputs"], feed), strict=True):
            expected = np.load(place / f"{name}.npy", allow_pickle=False)
            worst = max(worst, float(np.abs(actual - expected).max() / np.abs(expected).max()))
    if not worst <= golden["tolerance"]:
        raise StageError(
            f"The bundle {folder.name} gives other outputs here than where it was made: they differ by {worst:.3g} "
            f"of the largest value, {golden['tolerance']} is allowed.",
            "Compare the CPU's instruction sets and the ONNX Runtime versions.",
        )
    return worst
