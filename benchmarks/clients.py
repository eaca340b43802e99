"""Clients that reproduce the golden outputs of a bundle by running the code of its README.

    EDGE_CLIENTS=FOLDER make bench ID=clients.passing     # keeps what is installed from npm and PyPI: about 2 GB

Each client has an environment of its own: sentence-transformers' ONNX backend needs an older transformers than edge.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.browser import answer_of
from benchmarks.data import folder
from benchmarks.row import Measured, Row
from benchmarks.training_time import run_plan
from pipeline.bundle.golden import Golden, golden_arrays, read_golden
from pipeline.bundle.records import read_metadata
from pipeline.bundle.verify import difference
from pipeline.config.job import Job
from pipeline.plan.build import make_plan

Run = Callable[[Mapping[str, str]], Any]
Client = Callable[[Path, Mapping[str, str]], Any]
Answers = Mapping[str, NDArray[Any]]
_TEXTS = '["The first text.", "Another one."]'
_NODE = ("onnxruntime-node@1", "onnxruntime-web@1", "@huggingface/transformers@4")
_PYTHON = ("onnxruntime~=1.32.0", "numpy", "tokenizers", "pillow")
SENTENCES = ("sentence-transformers[onnx]~=5.7", "torch~=2.13.0", "onnxruntime~=1.32.0")
_CDN = re.compile(r"https://cdn\.jsdelivr\.net/npm/((?:@\w+/)?[\w-]+)@[\d.]+")
_PREFIX = "/node_modules/"
_SAY_PYTHON = """
import json, sys
values = outputs if isinstance(outputs, dict) else {"": outputs}
print("ANSWER", json.dumps({name: value.tolist() for name, value in values.items()}))
"""
_PLAIN = """
const plain = (value) => value.dims ? { dims: value.dims, data: Array.from(value.data, Number) } : value;
const answer = outputs.dims || Array.isArray(outputs) ? { "": plain(outputs) }
  : Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, plain(value)]));
"""
_SAY_NODE = _PLAIN + 'console.log("ANSWER", JSON.stringify(answer));'
_SAY_PAGE = _PLAIN + 'await fetch("/answer", { method: "POST", body: JSON.stringify(answer) });\n'


class Environments:
    """The clients' libraries, each installed when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def node_modules(self) -> Path:
        """From the npm registry, without scripts that download more."""
        place = self.folder / "node" / "node_modules"
        if not place.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(place.parent)]
            subprocess.run([*command, *_NODE], check=True, capture_output=True)
        return place

    def python(self, name: str, packages: tuple[str, ...]) -> Path:
        """The interpreter of an environment with these packages of PyPI: Python 3.12 where the machine has it."""
        place = self.folder / name
        interpreter = place / ("Scripts" if os.name == "nt" else "bin") / "python"
        done = place / "installed.txt"
        own = _python()
        if not done.is_file() or done.read_text(encoding="utf-8").split() != [own, *packages]:
            subprocess.run([own, "-m", "venv", "--clear", str(place)], check=True, capture_output=True)
            command = [str(interpreter), "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(command, check=True, capture_output=True, env=_own())
            done.write_text("\n".join((own, *packages)), encoding="utf-8")
        return interpreter


def _python() -> str:
    """An app's: another one than this project runs on, if there is one."""
    found = shutil.which("python3.12")
    works = found and subprocess.run([found, "--version"], check=False, capture_output=True).returncode == 0
    return found if found and works else sys.executable


def _own() -> dict[str, str]:
    """The environment of a process that must not see this project."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@contextmanager
def environments() -> Iterator[Environments]:
    """In the folder EDGE_CLIENTS, else for a while."""
    if place := os.environ.get("EDGE_CLIENTS"):
        yield Environments(Path(place))
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Environments(Path(scratch))


def missing() -> str:
    """What this machine lacks to run all clients; empty if nothing."""
    lacking = [program for program in ("node", "npm", "chromium") if shutil.which(program) is None]
    return f"needs {', '.join(lacking)}" if lacking else ""


def code(bundle: Path, language: str, sample: Mapping[str, str]) -> str:
    """The first code of a language in the bundle's README, with the sample's texts in place of its own."""
    found = re.search(rf"```{language}\n(.*?)```", (bundle / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    if found is None:
        raise ValueError(f"The README of {bundle} has no code in {language}.")
    lines = found.group(1)
    for own, given in sample.items():
        lines = lines.replace(own, given)
    return lines


def in_python(bundle: Path, sample: Mapping[str, str], interpreter: Path) -> Any:
    """What the README's Python makes of a sample."""
    script = code(bundle, "python", sample) + _SAY_PYTHON
    return _said([str(interpreter), "-c", script], bundle)


def in_node(bundle: Path, sample: Mapping[str, str], modules: Path) -> Any:
    """What the README's JavaScript makes of a sample, in Node."""
    with _beside(bundle, modules) as place:
        (place / "client.mjs").write_text(code(bundle, "javascript", sample) + _SAY_NODE, encoding="utf-8")
        return _said(["node", "client.mjs"], place)


def in_chromium(bundle: Path, sample: Mapping[str, str], modules: Path, picture: Path) -> Any:
    """What the README's page makes of a sample, in headless Chromium."""
    page = _CDN.sub(rf"{_PREFIX}\1", code(bundle, "html", sample))
    page = _SAY_PAGE.join(page.rsplit("</script>", 1)) + "</script>"
    page = page.replace("env.allowLocalModels = true;", f"env.allowLocalModels = true;\n{_local_runtime(modules)}")
    return answer_of(page, bundle, (_PREFIX, modules), picture)


def _local_runtime(modules: Path) -> str:
    """The line by which transformers.js takes ONNX Runtime from here instead of from a public server."""
    nested = "@huggingface/transformers/node_modules/onnxruntime-web"
    place = nested if (modules / nested).is_dir() else "onnxruntime-web"
    return f'env.backends.onnx.wasm.wasmPaths = new URL("{_PREFIX}{place}/dist/", location.href).href;'


@contextmanager
def _beside(bundle: Path, modules: Path) -> Iterator[Path]:
    """A copy of the bundle with the libraries in it: a bundle with other files is damaged."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "bundle"
        shutil.copytree(bundle, place)
        (place / "node_modules").symlink_to(modules)
        yield place


def _said(command: list[str], place: Path) -> Any:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, env=_own())
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    if done.returncode or not lines:
        raise RuntimeError(f"{command[0]} ended with {done.returncode} in {place}: {done.stderr[-2000:]}")
    return json.loads(lines[-1].removeprefix("ANSWER "))


def worst(bundle: Path, run: Run) -> float:
    """The largest difference of a client's answers from the golden outputs, as a share of the largest value.

    Args:
        bundle: The bundle.
        run: What the client says of a sample; a single answer without a name is the embedding.
    """
    golden, found = read_golden(bundle), [0.0]
    for number in range(golden.samples):
        expected = golden_arrays(bundle, number, golden.outputs)
        answers = run(_sample(golden, number))
        found += [_difference(answer, expected, name) for name, answer in answers.items()]
    return max(found)


def worst_score(bundle: Path, run: Run) -> float:
    """The largest difference of a classifying pipeline's score from the probability in the golden outputs; 1 where the
    class is another one."""
    golden, found = read_golden(bundle), [0.0]
    names = json.loads((bundle / "labels.json").read_text(encoding="utf-8"))
    for number in range(golden.samples):
        (logits,) = golden_arrays(bundle, number, golden.outputs).values()
        chances = np.exp(logits[0]) / np.exp(logits[0]).sum()
        best = run(_sample(golden, number))[""][0]
        same = best["label"] == names[int(chances.argmax())]
        found.append(abs(best["score"] - float(chances.max())) if same else 1.0)
    return max(found)


def _sample(golden: Golden, number: int) -> dict[str, str]:
    """What stands in the README's code -> what a golden sample came from."""
    if golden.texts:
        return {_TEXTS: json.dumps([golden.texts[number]])}
    return {f"golden/0/{golden.raw}": f"golden/{number}/{golden.raw}"}


def _difference(answer: Any, expected: Answers, name: str) -> float:
    values = np.reshape(answer["data"], answer["dims"]) if isinstance(answer, dict) else np.asarray(answer)
    return difference(values.astype(np.float32), expected[name or "sentence_embedding"])


@cache
def text_bundle(layout: str) -> Path:
    """The default model's in a layout, from the store where it is there."""
    texts = str(Path(__file__).parents[1] / "calibration/text-en/calibration.txt")
    return run_plan(make_plan(Job(layout=layout, eval_data=(texts,))))["bundle"].path


@cache
def image_bundle() -> Path:
    """SqueezeNet's, whose golden sample is a photo."""
    photos, recipe = str(folder() / "imagenet1k_224"), str(Path(__file__).parent / "recipes/squeezenet.toml")
    model = f"{folder() / 'models.py'}:squeezenet"
    plan = make_plan(Job(model=model, recipe=recipe, calibration_data=photos, eval_data=(photos,)))
    return run_plan(plan)["bundle"].path


def passing() -> Measured:
    """How many clients reproduce the golden outputs within the tolerance of each bundle, beside how many were tried."""
    if lacking := missing():
        raise RuntimeError(f"clients.passing {lacking}")
    with environments() as installed, tempfile.TemporaryDirectory() as pictures:
        clients = _clients(installed, Path(pictures))
        passed = [all(_passes(name, bundle, run) for bundle in bundles) for name, bundles, run in clients]
    return Measured(sum(passed), len(passed))


def _passes(name: str, bundle: Path, run: Client) -> bool:
    share, allowed = worst(bundle, partial(run, bundle)), read_golden(bundle).tolerance
    print(f"{name:<30} {read_metadata(bundle).model:<20} {share:.2g} of the largest value, {allowed} is allowed")
    return share <= allowed


def _clients(installed: Environments, pictures: Path) -> list[tuple[str, list[Path], Client]]:
    """Name, its bundles, and what it says of a bundle's sample."""
    plain, js = [text_bundle("single"), image_bundle()], [text_bundle("transformers.js")]
    node = partial(in_node, modules=installed.node_modules)
    chromium = partial(in_chromium, modules=installed.node_modules, picture=pictures / "page.png")
    return [
        ("Python without torch", plain, partial(in_python, interpreter=installed.python("python", _PYTHON))),
        ("Node", plain, node),
        ("Chromium, from bytes", plain, chromium),
        ("transformers.js in Node", js, node),
        ("transformers.js in Chromium", js, chromium),
        (
            *("sentence-transformers", [text_bundle("sentence-transformers")]),
            partial(in_python, interpreter=installed.python("sentences", SENTENCES)),
        ),
    ]


ROWS = [Row("clients.passing", "clients", "tried", passing)]
