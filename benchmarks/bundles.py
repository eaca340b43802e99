"""What an app gets: short texts, load peaks, the same bytes elsewhere, and the runtimes that load a bundle.

`runtime.versions_right` installs releases of ONNX Runtime from PyPI (see `releases.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from benchmarks import minilm, releases
from benchmarks.latency import in_one_run
from benchmarks.row import Measured, Row
from pipeline.bundle.layout import write_graphs
from pipeline.bundle.records import read_metadata
from pipeline.checks.timing import speed_figure
from pipeline.config.loading import load_target
from pipeline.config.target import Layout
from pipeline.devices.host_runner import HOST
from pipeline.devices.memory import measure_memory
from pipeline.devices.runner import subject_of
from pipeline.devices.worker import Feed
from pipeline.graph.files import MODEL, file_of, graphs_in
from pipeline.runtime.feeds import write_feed
from pipeline.runtime.releases import parse_release

_FIVE_WORDS = "where is the next station"
_LONGEST = 128
_VERSIONS = ("1.17.3", "1.20.1", "1.23.2", "1.32.0")
_REFUSED = 9
_LOAD = f"""
import sys
import numpy as np, onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state
ort.set_default_logger_severity(4)
refusals = tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
arrays = [np.load(file) for file in sys.argv[2:]]
try:
    session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    session.run(None, dict(zip([entry.name for entry in session.get_inputs()], arrays)))
except refusals:
    sys.exit({_REFUSED})
"""


def short_text_speedup() -> Measured:
    """Latency of a five-word text that is padded to 128 tokens, as the tokenizer of the model's folder does it, over
    that of the tokens that the bundle's tokenizer makes; beside it their number."""
    bundle, runtime = minilm.artifacts("w8a8", "phone")["bundle"].path, load_target("phone").runtime
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokens = tokenizer.encode(_FIVE_WORDS)
    short = {
        "input_ids": np.array([tokens.ids]),
        "attention_mask": np.array([tokens.attention_mask]),
        "token_type_ids": np.array([tokens.type_ids]),
    }
    padded = {name: np.pad(array, ((0, 0), (0, _LONGEST - array.shape[1]))) for name, array in short.items()}
    with tempfile.TemporaryDirectory() as scratch:
        files = [_feed(Path(scratch) / name, feed) for name, feed in (("padded.npz", padded), ("short.npz", short))]
        turns = in_one_run([subject_of(bundle / file_of(MODEL), file, runtime) for file in files], 60)
    return Measured(speed_figure(turns, 0, 1).value, len(tokens.ids))


def _feed(path: Path, feed: Feed) -> Path:
    write_feed(path, feed)
    return path


def load_peak_ratio(layout: Layout) -> Callable[[], Measured]:
    """The peak while the phone bundle loads in a layout, over that of the same weights in one plain file; beside it the
    latter's MB."""

    def measured() -> Measured:
        made, runtime = minilm.artifacts("w8a8", "phone"), load_target("phone").runtime
        graphs = graphs_in(made["write"].path)
        with tempfile.TemporaryDirectory() as scratch:
            inputs = _feed(Path(scratch) / "inputs.npz", {name: np.ones((1, 8), np.int64) for name in graphs.inputs})
            peaks = []
            for form in ("single", layout):
                folder = Path(scratch) / f"{len(peaks)}"
                folder.mkdir()
                write_graphs(graphs, folder, form)
                memory = measure_memory(HOST, subject_of(folder / file_of(MODEL), inputs, runtime))
                peaks.append(memory.load_peak_mb.value if memory.load_peak_mb else float("nan"))
        return Measured(peaks[1] / peaks[0], peaks[0])

    return measured


def rebuild_identical() -> Measured:
    """Is a bundle that is built in another folder, HOME, locale and time zone the same (1), beside how many builds."""
    homes = ({"LC_ALL": "C.UTF-8", "TZ": "UTC"}, {"LC_ALL": "C", "TZ": "Asia/Kolkata", "PYTHONHASHSEED": "7"})
    digests = {_built(environment) for environment in homes}
    return Measured(float(len(digests) == 1), len(homes))


def _built(environment: dict[str, str]) -> str:
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "home of another"
        home.mkdir()
        own = {"HOME": str(home), "EDGE_STORE": str(home / "store"), "PYTHONPATH": str(Path(__file__).parents[1])}
        texts = Path(minilm.__file__).parents[1] / "calibration" / "text-en" / "calibration.txt"
        command = [sys.executable, "-m", "pipeline", "export", "--eval-data", str(texts), "--output", "out"]
        variables = {**os.environ, **own, **environment}
        done = subprocess.run(command, cwd=place, env=variables, capture_output=True, text=True, check=False)
        if not (Path(place) / "out" / "bundle").is_dir():  # a budget may fail on a loaded machine
            raise RuntimeError(f"the export ended with exit {done.returncode}: {done.stderr[-500:]}")
        return str(json.loads((Path(place) / "out/bundle/manifest.json").read_text(encoding="utf-8"))["digest"])


def versions_right() -> Measured:
    """How many releases of ONNX Runtime load the bundles, and refuse them, as their metadata says; beside how many were
    tried. The bundles: the default model under three recipes, one of them written for an older release."""
    with _wheels() as wheels:
        bundles = [minilm.artifacts(recipe, "phone")["bundle"].path for recipe in ("w8a8", "w8a8-dynamic", "w4", "w8")]
        right = [all(_as_said(bundle, one, wheels) for bundle in bundles) for one in _VERSIONS]
    return Measured(sum(right), len(right))


@contextmanager
def _wheels() -> Iterator[Path]:
    """Where releases are installed: EDGE_RELEASES, else for a while."""
    if place := os.environ.get("EDGE_RELEASES"):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def _as_said(bundle: Path, version: str, wheels: Path) -> bool:
    """Whether a release loads the bundle and runs a golden sample if the metadata says so, and else does not."""
    folder, metadata = releases.install(version, wheels), read_metadata(bundle)
    inputs = [str(bundle / "golden/0" / f"input-{number}.npy") for number in range(len(metadata.graphs[0].inputs))]
    environment = {**os.environ, "PYTHONPATH": str(folder), "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", _LOAD, str(bundle / metadata.graphs[0].file), *inputs]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, _REFUSED):
        raise RuntimeError(f"ONNX Runtime {version} did not come to try {bundle}: {done.stderr[-500:]}")
    return (done.returncode == 0) == (parse_release(version) >= metadata.requires.release)


ROWS = [
    Row("bundle.short_text_speedup", "x", "its tokens", short_text_speedup),
    Row("bundle.load_peak_ratio.single", "x", "MB of one plain file", load_peak_ratio("single")),
    Row("bundle.load_peak_ratio.mapped", "x", "MB of one plain file", load_peak_ratio("mapped")),
    Row("bundle.rebuild_identical", "same", "builds", rebuild_identical),
    Row("runtime.versions_right", "releases", "tried", versions_right),
]
