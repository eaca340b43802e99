"""Does a change of the code leave the bundles' bytes alone? The files of reference exports held against a record.

    python -m benchmarks.sameness record            # with the old code
    python -m benchmarks.sameness check             # with the new one
    python -m benchmarks.sameness check --only default,cnn

Rounded codes and trained weights depend on the CPU's instructions: a record holds for the ISA that it names. Torch runs
on one thread, since the bytes of trained weights depend on how many there are. `manifest.json`, `metadata.json`,
`golden.json` and `README.md` are left out: their fields and sentences may change. Every check exports anew, unless
EDGE_STORE names a store that has the stages.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.row import Measured, Row
from benchmarks.training_time import run_plan
from pipeline.bundle import golden
from pipeline.bundle.manifest import MANIFEST
from pipeline.bundle.readme import README
from pipeline.bundle.records import METADATA
from pipeline.config.job import Job
from pipeline.core.artifact import RECORD
from pipeline.core.digest import pretty_json, sha256_file
from pipeline.devices.host_info import host_info
from pipeline.graph.files import graphs_in
from pipeline.plan.build import make_plan

REFERENCE = Path(__file__).parent / "reference_bytes.json"
_TEXTS = Path(__file__).parents[1] / "calibration" / "text-en" / "calibration.txt"
_LEFT_OUT = {MANIFEST, METADATA, README, RECORD, golden.RECORD}
_FACTORY = """
import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x):
        y = torch.relu(self.norms[0](self.depthwise(x)))
        return torch.relu(x + self.norms[1](self.pointwise(y)))


def made():
    torch.manual_seed(0)
    start = nn.Sequential(nn.Conv2d(3, 192, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(192), nn.ReLU())
    blocks = nn.Sequential(Residual(192), Residual(192))
    head = nn.Linear(192, 10)
    network = nn.Sequential(start, blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    images = torch.randn(64, 3, 32, 32) * torch.rand(64, 3, 1, 1) * 4
    with torch.no_grad():
        network.train()(images)  # statistics of its normalizations
        head.bias -= network.eval()(images).mean(0)  # several classes win
    return network
"""
_IMAGES = """
title = "Small images"
scheme = "w8a8"
task = "image-classification"

[inputs.input]
shape = ["batch", 3, 32, 32]
"""
_RECIPES = {
    "short-half-layers": """
title = "Half of the layers, ten steps"
scheme = "w8a8"
[[passes]]
pass = "prune"
unit = "layers"
ratio = 0.5
importance = "even"
[[passes]]
pass = "distill"
steps = 10
batch_size = 16
held_out = 0.1
""",
    "low-rank": """
title = "Low rank"
scheme = "w4"
[[passes]]
pass = "low_rank"
ignore = ["*pooler*"]
target_params = 0.8
samples = 64
""",
    "sparse": """
title = "Sparse"
scheme = "w8a8-dynamic"
[[passes]]
pass = "sparsify"
pattern = "2:4"
ignore = ["*pooler*"]
""",
    "trimmed": f"""
title = "Fewer tokens"
scheme = "w4a8-dynamic"
[[passes]]
pass = "prune"
unit = "tokens"
data = "{_TEXTS}"
samples = 64
""",
}


def _default(target: str = "phone", recipe: str | None = None) -> Callable[[Path], Job]:
    def job(place: Path) -> Job:
        own = place / f"{recipe}.toml"
        if recipe in _RECIPES:
            own.write_text(_RECIPES[recipe], encoding="utf-8")
        texts = place / "texts.txt"
        texts.write_text("".join(_TEXTS.read_text(encoding="utf-8").splitlines(keepends=True)[:64]), encoding="utf-8")
        return Job(
            target=target,
            recipe=str(own) if own.is_file() else recipe,
            eval_data=(str(texts),),
            training_data=(str(_TEXTS),) if recipe == "short-half-layers" else (),
        )

    return job


def _images(place: Path, model: str) -> Job:
    (place / "images.toml").write_text(_IMAGES, encoding="utf-8")
    generator = np.random.default_rng(0)
    sizes = generator.random((64, 3, 1, 1)) * 4
    np.savez(place / "images.npz", input=(generator.normal(size=(64, 3, 32, 32)) * sizes).astype(np.float32))
    images, recipe = str(place / "images.npz"), str(place / "images.toml")
    return Job(model=model, target="car", recipe=recipe, calibration_data=images, eval_data=(images,))


def _factory(place: Path) -> Job:
    (place / "network.py").write_text(_FACTORY, encoding="utf-8")
    return _images(place, f"{place / 'network.py'}:made")


def _onnx(place: Path) -> Job:
    """The float graph of the factory's network, as a file of its own."""
    traced = run_plan(make_plan(_factory(place)))["trace.float"]
    shutil.copytree(traced.path, place / "traced")
    return _images(place, str(place / "traced" / "model.onnx"))


EXPORTS: dict[str, Callable[[Path], Job]] = {
    "default": _default(),
    "cnn": _factory,
    "onnx": _onnx,
    "car": _default("car"),
    "robot": _default("robot"),
    "w4": _default(recipe="w4"),
    "w8": _default(recipe="w8"),
    "fp16": _default(recipe="fp16"),
    "prune-w4": _default(recipe="prune-w4"),
    "half-layers": _default(recipe="short-half-layers"),
    "low-rank": _default(recipe="low-rank"),
    "sparse": _default(recipe="sparse"),
    "trimmed": _default(recipe="trimmed"),
}
"""Name -> what to export, given a folder for the files that it needs."""


def files_of(name: str) -> dict[str, str]:
    """The sha256 of every file of the export's bundle, by path; of its graph as it is written before the bundle."""
    with tempfile.TemporaryDirectory() as scratch:
        made = run_plan(make_plan(EXPORTS[name](Path(scratch))))
        bundle = made["bundle"].path
        found = (file for file in sorted(bundle.rglob("*")) if file.is_file() and file.name not in _LEFT_OUT)
        files = {file.relative_to(bundle).as_posix(): sha256_file(file) for file in found}
        written = made["write"].path
        return files | {file.name: sha256_file(file) for graph in graphs_in(written) for file in graph.files(written)}


def isa() -> str:
    return " ".join(host_info().isa)


def differences(name: str, recorded: dict[str, str]) -> Iterator[str]:
    """What is not as it was recorded, a line a file."""
    found = files_of(name)
    for file in sorted(found | recorded):
        if found.get(file) != recorded.get(file):
            state = "differs" if file in found and file in recorded else "is new" if file in found else "is gone"
            yield f"{name}: {file} {state}"


def identical() -> Measured:
    """Share of the reference files with the recorded bytes, beside their number."""
    torch.set_num_threads(1)
    with _fresh_store():
        changed = _changed([*_recorded()])
    total = sum(map(len, _recorded().values()))
    return Measured(1 - changed / total, total)


def _changed(names: list[str]) -> int:
    """How many files of these exports differ from the record; prints them."""
    changed = 0
    for name in names:
        lines = [*differences(name, _recorded()[name])]
        changed += len(lines)
        print(*lines or [f"{name}: same"], sep="\n", flush=True)
    return changed


def _recorded() -> dict[str, dict[str, str]]:
    record = json.loads(REFERENCE.read_text(encoding="utf-8"))
    if record["isa"] != isa():
        raise SystemExit(
            f"{REFERENCE.name} was made on another CPU ({record['isa']}).\n"
            "  Make it anew with the commit that it was made with."
        )
    return dict(record["exports"])


@contextmanager
def _fresh_store() -> Iterator[None]:
    """An empty store while it lasts, unless EDGE_STORE names one."""
    if "EDGE_STORE" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory() as place:
        os.environ["EDGE_STORE"] = place
        try:
            yield
        finally:
            del os.environ["EDGE_STORE"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["record", "check"])
    parser.add_argument("--only", help=f"of {', '.join(EXPORTS)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.only.split(",") if arguments.only else list(EXPORTS)
    with _fresh_store():
        if arguments.what == "record":
            record = {"isa": isa(), "exports": {name: files_of(name) for name in names}}
            REFERENCE.write_text(pretty_json(record), encoding="utf-8")
            return 0
        return 1 if _changed(names) else 0


ROWS = [Row("structure.identical", "share", "files compared", identical)]

if __name__ == "__main__":
    sys.exit(main())
