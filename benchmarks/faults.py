"""Faults planted into bundles, models and data: does the gate catch each, and say why? And does it stay quiet without?

    python -m benchmarks.faults                     # all; those of data need EDGE_DATA
    python -m benchmarks.faults overflow tokenizer  # some

Everything goes through the command line, as a release would: an export of the default model, and then changes.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.data import folder, sts_dev
from benchmarks.row import Measured, Row
from pipeline.bundle.manifest import read_manifest, write_manifest
from pipeline.config.job import DEFAULT_MODEL
from pipeline.core.documents import read_json
from pipeline.source.model import resolve_model

CLEAN = 20
_ROOT = Path(__file__).parents[1]
_FAIL, _REFUSED, _BROKEN = 1, 2, 3
_RECIPE = 'title = "A planted fault"\nscheme = {scheme}\ntask = "{task}"\n'


@dataclass(frozen=True)
class Asked:
    """What `edge` ended with."""

    code: int
    said: str


class Workshop:
    """A folder in which faults are planted, with the sound bundle of the default model for the phone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def edge(self, *arguments: str) -> Asked:
        """Words are joined anew, so that they can be looked for whatever the width of the screen."""
        command = [sys.executable, "-m", "pipeline", *arguments]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
        return Asked(done.returncode, " ".join((done.stdout + done.stderr).split()))

    @cached_property
    def sound(self) -> Path:
        out = self.folder / "sound"
        done = self.edge("export", "--target", "phone", "--output", str(out))
        if done.code != 0:
            raise SystemExit(f"The sound export ended with {done.code}: {done.said[-2000:]}")
        return out / "bundle"

    def figure(self, name: str) -> float:
        """Of the sound bundle's report."""
        return float(read_json(self.sound.parent / "report.json")["figures"][name]["value"])

    def copy(self, name: str) -> Path:
        bundle = self.folder / name / "bundle"
        shutil.copytree(self.sound, bundle)
        shutil.copytree(self.sound.parent / "reference", bundle.parent / "reference")
        return bundle

    def changed(self, name: str, change: Callable[[onnx.ModelProto], onnx.ModelProto]) -> Path:
        """A bundle with another graph, sealed anew, as a release script that edits graphs would."""
        bundle, provenance = self.copy(name), read_manifest(self.sound)["provenance"]
        onnx.save(change(onnx.load(bundle / "model.onnx")), bundle / "model.onnx")
        (bundle / "manifest.json").unlink()
        write_manifest(bundle, provenance)
        return bundle

    def check(self, bundle: Path, *arguments: str) -> Asked:
        return self.edge("check", str(bundle), "--target", "phone", *arguments)

    def export(self, name: str, *arguments: str) -> Asked:
        return self.edge("export", "--target", "phone", "--output", str(self.folder / name), *arguments)

    def recipe(self, name: str, scheme: str, task: str, more: str = "") -> str:
        file = self.folder / f"{name}.toml"
        file.write_text(_RECIPE.format(scheme=scheme, task=task) + more, encoding="utf-8")
        return str(file)


@dataclass(frozen=True)
class Fault:
    """What is planted: `ask` runs the gate; it is caught by this exit code if all `words` are said."""

    name: str
    ask: Callable[[Workshop], Asked]
    code: int
    words: tuple[str, ...]

    def caught(self, shop: Workshop) -> bool:
        found = self.ask(shop)
        missing = [word for word in self.words if word not in found.said]
        good = found.code == self.code and not missing
        told = "caught" if good else f"MISSED: exit code {found.code}, without {missing}: ...{found.said[-1500:]}"
        print(f"{self.name:<16} {told}", flush=True)
        return good


def _float_layer(shop: Workshop) -> Asked:
    return shop.export("float_layer", "--nodes-to-exclude", "encoder.layer.2.intermediate*")


def _slow(shop: Workshop) -> Asked:
    """Every product of the graph is computed a second time, and thrown away but for a zero."""
    return shop.check(shop.changed("slow", lambda model: busier(model, times=30)))


def _per_tensor(shop: Workshop) -> Asked:
    return shop.export("per_tensor", "--recipe", "w8a8-dynamic", "--per-tensor")


def _overflow(shop: Workshop) -> Asked:
    recipe = shop.recipe("overflow", '{ base = "w8a8-dynamic", reduce_range = false }', "feature-extraction")
    return shop.export("overflow", "--recipe", recipe, "--budget", "max_overflow=0")


def _preprocessing(shop: Workshop) -> Asked:
    """Pixels from 0 to 1 that nobody normalized, as an app does that forgot it."""
    sound = (_ROOT / "benchmarks/recipes/cifar.toml").read_text(encoding="utf-8")
    recipe = shop.folder / "cifar.toml"
    wrong = sound.replace("[0.485, 0.456, 0.406]", "[0, 0, 0]").replace("[0.229, 0.224, 0.225]", "[1, 1, 1]")
    recipe.write_text(wrong, encoding="utf-8")
    data = str(folder() / "cifar10_jpeg/test_even.npz")
    images = ("--calibration-data", data, "--eval-data", data)
    given = ("--model", f"{folder() / 'models.py'}:resnet20", "--recipe", str(recipe))
    return shop.export("preprocessing", *given, *images, "--budget", "min_score=75")


def _memory(shop: Workshop) -> Asked:
    return shop.check(shop.sound, "--budget", f"peak_memory_mb={shop.figure('peak_memory_mb') / 1.05:.3f}")


def _accuracy(shop: Workshop) -> Asked:
    return shop.check(shop.sound, "--budget", f"max_accuracy_drop={shop.figure('max_accuracy_drop') / 2:.4f}")


def _tokenizer(shop: Workshop) -> Asked:
    """That of a model with the same words in another order."""
    model = shop.folder / "model"
    shutil.copytree(resolve_model(DEFAULT_MODEL).path, model)
    tokenizer = read_json(model / "tokenizer.json")
    words = tokenizer["model"]["vocab"]
    plain = [word for word in words if not word.startswith("[")]
    turned = dict(zip(plain, [words[word] for word in [*plain[1000:], *plain[:1000]]], strict=True))
    tokenizer["model"]["vocab"] = {**words, **turned}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    pairs = shop.folder / "pairs.csv"
    with pairs.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "score"), *((a, b, s) for s, a, b in sts_dev()[:400])])
    return shop.export("tokenizer", "--model", str(model), "--eval-data", str(pairs), "--budget", "min_score=80")


def _byte(shop: Workshop) -> Asked:
    bundle = shop.copy("byte")
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    return shop.check(bundle)


def _operator(shop: Workshop) -> Asked:
    return shop.check(shop.changed("operator", _unknown_operator))


def _golden(shop: Workshop) -> Asked:
    """On one CPU alone, which has no VNNI: 8-bit weights answer otherwise there."""
    recipe = shop.recipe("golden", '{ base = "w8a8-dynamic", reduce_range = false }', "feature-extraction")
    return shop.export("golden", "--recipe", recipe, "--runner", "avx2")


def _regression(shop: Workshop) -> Asked:
    """A tenth more products than the earlier bundle has."""
    slower = shop.changed("regression", lambda model: busier(model, times=4))
    return shop.check(slower, "--previous", str(shop.sound))


def busier(model: onnx.ModelProto, times: int) -> onnx.ModelProto:
    """The graph with products of 384 x 1536 floats on the hidden states of its first normalization, `times` over, whose
    results count nothing."""
    graph = model.graph
    place = next(n for n, node in enumerate(graph.node) if node.op_type.endswith("LayerNormalization"))
    states = graph.node[place].output[0]
    generator = np.random.default_rng(0)
    zero = numpy_helper.from_array(np.float32(1e-30), "busy_zero")
    graph.initializer.append(zero)
    added, last = [], f"{states}_before"
    for number in range(times):
        weight = generator.standard_normal((384, 384)).astype(np.float32) / 20
        graph.initializer.append(numpy_helper.from_array(weight, f"busy_{number}"))
        added.append(helper.make_node("MatMul", [last, f"busy_{number}"], [f"busy_{number}_out"]))
        last = f"busy_{number}_out"
    added.append(helper.make_node("Mul", [last, "busy_zero"], ["busy_nothing"]))
    added.append(helper.make_node("Add", [f"{states}_before", "busy_nothing"], [states]))
    graph.node[place].output[0] = f"{states}_before"
    rest = list(graph.node[place + 1 :])
    del graph.node[place + 1 :]
    graph.node.extend([*added, *rest])
    return model


def _unknown_operator(model: onnx.ModelProto) -> onnx.ModelProto:
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    last = model.graph.node[-1]
    result = last.output[0]
    last.output[0] = f"{result}_before"
    model.graph.node.append(helper.make_node("Polish", [f"{result}_before"], [result], domain="com.example"))
    return model


FAULTS = (
    Fault("float_layer", _float_layer, _FAIL, ("FAIL min_mac_coverage", "excluded by name")),
    Fault("slow", _slow, _FAIL, ("FAIL min_speedup",)),
    Fault("per_tensor", _per_tensor, _FAIL, ("FAIL min_top10_overlap",)),
    Fault("overflow", _overflow, _FAIL, ("FAIL max_overflow", "reduce_range = true")),
    Fault("preprocessing", _preprocessing, _FAIL, ("FAIL min_score", "look at the pre-processing")),
    Fault("memory", _memory, _FAIL, ("FAIL peak_memory_mb",)),
    Fault("accuracy", _accuracy, _FAIL, ("FAIL max_accuracy_drop",)),
    Fault("tokenizer", _tokenizer, _FAIL, ("FAIL min_score", "the tokenizer")),
    Fault("byte", _byte, _REFUSED, ("model.onnx was changed",)),
    Fault("operator", _operator, _BROKEN, ("Polish",)),
    Fault("golden", _golden, _FAIL, ("FAIL min_golden_match", "avx2: 0 of 4 golden outputs")),
    Fault("regression", _regression, _FAIL, ("FAIL min_previous_speedup",)),
)


def faults_caught(names: Sequence[str] = ()) -> Measured:
    """Planted faults that the gate catches with the right reason, of so many."""
    chosen = [fault for fault in FAULTS if not names or fault.name in names]
    with tempfile.TemporaryDirectory(prefix="edge-faults-") as place:
        shop = Workshop(Path(place))
        return Measured(sum(fault.caught(shop) for fault in chosen), len(chosen))


def false_alarms() -> Measured:
    """Checks of the sound bundle beside its own copy that do not end with 0, of so many."""
    with tempfile.TemporaryDirectory(prefix="edge-faults-") as place:
        shop = Workshop(Path(place))
        copy = shop.copy("clean")
        codes = [shop.check(shop.sound, "--previous", str(copy)).code for _ in range(CLEAN)]
        print(codes, flush=True)
        return Measured(sum(code != 0 for code in codes), CLEAN)


ROWS = [
    Row("gate.faults_caught", "faults", "faults planted", faults_caught),
    Row("gate.false_alarms", "runs", "runs of a sound bundle", false_alarms),
]

if __name__ == "__main__":
    print(faults_caught(sys.argv[1:]))
