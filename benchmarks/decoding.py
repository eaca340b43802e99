"""A language model's 4-bit bundle against the file that onnxruntime-genai's own model builder makes of the checkpoint.

    EDGE_GENAI=FOLDER make bench ID=decode.tinylm     # FOLDER keeps the packages from PyPI: about 40 MB

Both run in onnxruntime-genai, in one process, in turns, on all cores. The small Llama is that of EDGE_DATA.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks import tinylm
from benchmarks.data import folder
from benchmarks.row import Measured, Row
from benchmarks.training_time import run_plan
from pipeline.bundle.records import read_metadata
from pipeline.config.job import Job
from pipeline.core.model_spec import LanguageSpec
from pipeline.metrics.language import divergence, log_probabilities
from pipeline.plan.build import make_plan

_PACKAGES = ("onnxruntime-genai~=0.18.0",)
_PROMPT, _STEPS, _ROUNDS = 128, 256, 15
_TURNS = """
import json, sys, time
import numpy as np
import onnxruntime_genai as genai

folders, prompt, steps, rounds, words = json.loads(sys.argv[1])
models = [genai.Model(folder) for folder in folders]
ids = np.random.default_rng(0).integers(3, words, prompt).astype(np.int32)

def turn(model):
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=prompt + steps + 2, min_length=prompt + steps + 2, do_sample=False)
    generator = genai.Generator(model, parameters)
    begin = time.perf_counter()
    generator.append_tokens(ids)
    generator.generate_next_token()
    first = time.perf_counter()
    for _ in range(steps):
        generator.generate_next_token()
    return first - begin, (time.perf_counter() - first) / steps

found = []
for number in range(rounds + 1):
    order = (0, 1) if number % 2 else (1, 0)
    times = {place: turn(models[place]) for place in order}
    found.append([times[0], times[1]])
print(json.dumps(found[1:]))
"""


@contextmanager
def genai_packages() -> Iterator[Path]:
    """A folder with onnxruntime-genai, beside the packages of this environment."""
    kept = os.environ.get("EDGE_GENAI")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(kept or scratch)
        if not (place / "onnxruntime_genai").is_dir():
            _run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(place), *_PACKAGES])
        yield place


def path_with(packages: Path | None) -> dict[str, str]:
    """This process's environment, where Python finds `packages` too."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), packages and str(packages)]))
    return {**os.environ, "PYTHONPATH": path}


def _run(command: list[str], packages: Path | None = None) -> str:
    done = subprocess.run(command, env=path_with(packages), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[:4]} failed: {done.stderr[-500:]}")
    return done.stdout


def _bundle() -> Path:
    """The phone's bundle of the small Llama, with the builder's bits: 4 in the output's product too."""
    place = folder() / "weights" / "tinylm"
    return run_plan(make_plan(Job(model=str(place), target="phone", recipe="w4a8")))["bundle"].path


def _built(packages: Path, out: Path) -> Path:
    """What the model builder makes of the small Llama."""
    _run(builder_command(folder() / "weights" / "tinylm", out), packages)
    return out


def builder_command(model: Path, out: Path) -> list[str]:
    """How the model builder is asked for 4 bits in blocks of 32, to the nearest code."""
    arguments = ["-i", str(model), "-o", str(out), "-p", "int4", "-e", "cpu", "-c", str(out.with_name("cache"))]
    return [sys.executable, "-m", "onnxruntime_genai.models.builder", *arguments]


def _on_all_cores(source: Path, copy: Path) -> Path:
    """A folder with links to the files of a model, whose session has as many threads as it likes."""
    copy.mkdir()
    for file in source.iterdir():
        if file.is_file() and file.name != "genai_config.json":
            (copy / file.name).symlink_to(file)
    config = json.loads((source / "genai_config.json").read_text(encoding="utf-8"))
    config["model"]["decoder"]["session_options"].pop("intra_op_num_threads", None)
    (copy / "genai_config.json").write_text(json.dumps(config), encoding="utf-8")
    return copy


@cache
def _measured() -> dict[str, Any]:
    """Seconds [rounds, 2 models, (first token, each further one)], ours first, and both perplexities."""
    with tempfile.TemporaryDirectory() as scratch, genai_packages() as packages:
        bundle, built = _bundle(), _built(packages, Path(scratch) / "built")
        language = read_metadata(bundle).language
        assert language is not None  # noqa: S101  # of a language model
        folders = [str(_on_all_cores(each, Path(scratch) / name)) for each, name in ((bundle, "own"), (built, "other"))]
        request = json.dumps([folders, _PROMPT, _STEPS, _ROUNDS, language.vocabulary])
        times = json.loads(_run([sys.executable, "-c", _TURNS, request], packages))
        losses = [_quality(each / "model.onnx", language) for each in (bundle, built)]
    return {"times": np.array(times), "perplexity": [loss[0] for loss in losses], "kl": [loss[1] for loss in losses]}


def _quality(model: Path, language: LanguageSpec) -> tuple[float, float]:
    """Perplexity over the held-out windows, and the divergence from float per token."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    float_model = tinylm.load()
    total, apart, count = 0.0, 0.0, 0
    for window in tinylm.windows(tinylm.held_out())[:48]:
        ids = window.numpy()[None]
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), **language.empty()}
        rows = log_probabilities(session.run(["logits"], feed)[0][0, :-1])
        of_float = log_probabilities(float_model(input_ids=window[None]).logits[0, :-1].detach().numpy())
        total -= float(rows[np.arange(len(rows)), ids[0, 1:]].astype(np.float64).sum())
        apart += float(divergence(of_float, rows).sum())
        count += len(rows)
    return float(np.exp(total / count)), apart / count


def _ratio(column: int) -> Measured:
    """How many times faster ours is, the median over rounds; beside it the builder's ms."""
    times = _measured()["times"][:, :, column]
    return Measured(float(np.median(times[:, 1] / times[:, 0])), 1e3 * float(np.median(times[:, 1])))


def _first() -> Measured:
    return _ratio(0)


def _each() -> Measured:
    return _ratio(1)


def _perplexity() -> Measured:
    own, other = _measured()["perplexity"]
    return Measured(own / other, other)


def _divergence() -> Measured:
    own, other = _measured()["kl"]
    return Measured(own / other, other)


_OTHER = "onnxruntime-genai's model builder, INT4"
ROWS = [
    Row("decode.tinylm.vs_genai", "x", f"{_OTHER}, ms a token (same run)", _each),
    Row("ttft.tinylm.vs_genai", "x", f"{_OTHER}, ms for 128 tokens (same run)", _first),
    Row("decode.ppl_ratio", "x", f"perplexity of {_OTHER}", _perplexity),
    Row("tinylm.w4g32.vs_genai_kl", "x", f"divergence from float of {_OTHER}, nats a token", _divergence),
]
