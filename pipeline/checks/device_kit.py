"""A folder to carry to a device by hand: the bundle's graphs, the measuring program, and the request it answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pipeline.bundle.example_feed import example_feed
from pipeline.bundle.manifest import read_manifest
from pipeline.bundle.records import bundle_graphs, read_metadata
from pipeline.checks.timing import SECONDS, timing_request
from pipeline.config.target import Target
from pipeline.core.errors import UsageError
from pipeline.core.paths import NOTHING, kind_of, require_place
from pipeline.devices import worker
from pipeline.devices.decoding import cache_of, decoding_request
from pipeline.devices.runner import encode, subject_of
from pipeline.devices.worker import Memory, Request, Series
from pipeline.graph.files import Graphs
from pipeline.numerics.timing import FEW_PROCESSES
from pipeline.runtime.feeds import write_feed

REQUEST, REPORT = "request.json", "report.json"
_INPUTS, _WORKER = "inputs.npz", "worker.py"
_README = f"""\
Measure this model on the device that you hold
==============================================

The device needs Python 3.10 or newer with numpy and onnxruntime (on Android: Termux, `pkg install python
python-numpy python-onnxruntime`, or `pip install numpy onnxruntime`). Bring this folder there, and in it run

    python {_WORKER} {REQUEST} {REPORT}

It takes a minute or two, and longer for large models: close other apps, and let the device cool down before. Bring
{REPORT} back, to where the bundle is:

    edge check BUNDLE --target TARGET --device-report {REPORT}
"""


def write_kit(bundle: Path, target: Target, folder: Path) -> None:
    """Write the kit that measures a bundle at the target's shape and runtime into a new folder. UsageError if the
    folder is there already, or the bundle is damaged."""
    manifest, metadata = read_manifest(bundle), read_metadata(bundle)
    if kind_of(folder) != NOTHING:
        raise UsageError(f"{folder} exists already.", "Name a new folder with -o/--output.")
    require_place(folder, f"The output {folder}", "Name a new folder with -o/--output.")
    names = [file.relative_to(bundle).as_posix() for spec in metadata.graphs for file in spec.files(bundle)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / name, folder / name)
    shutil.copyfile(worker.__file__, folder / _WORKER)
    shape = target.for_task(metadata.task).shape
    write_feed(folder / _INPUTS, example_feed(bundle, shape))
    graphs = Graphs(Path(), bundle_graphs(bundle).specs)
    subject = subject_of(graphs, Path(_INPUTS), target.runtime)
    language = None if metadata.language is None else cache_of(metadata.language)
    processes = range(1, FEW_PROCESSES + 1)
    timings = [timing_request([subject], process, target.measure_seconds or SECONDS) for process in processes]
    requests: list[Request] = [*timings, *([Memory(subjects=(subject,), language=language)] * FEW_PROCESSES)]
    if language is not None:
        requests += [decoding_request(subject, language, shape.sequence_length)] * FEW_PROCESSES
    series = Series(
        subjects=(subject,),
        bundle=manifest["digest"],
        files=names,
        requests=[json.loads(encode(each)) for each in requests],
    )
    (folder / REQUEST).write_text(encode(series), encoding="utf-8", newline="\n")
    (folder / "README.txt").write_text(_README, encoding="utf-8", newline="\n")
