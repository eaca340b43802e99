"""Keys and values in 8 bits: what they cost a small language model, and the time of one with a billion parameters.

    make bench ID=tinylm.kv8
    make bench ID=decode.kv8     # a quiet machine, 10 GB of disk, 20 minutes

The small Llama is that of EDGE_DATA; the large one has random weights (`benchmarks.llama_shapes`), 4-bit blocks of 32,
and runs on all cores. Its scales are made up: time does not depend on them.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks import tinylm
from benchmarks.data import folder
from benchmarks.large_models import make_graph
from benchmarks.llama_shapes import SHAPES, write_llama
from benchmarks.row import Measured, Row
from benchmarks.training_time import run_plan
from pipeline.config.job import Job
from pipeline.core.model_spec import CACHES, LanguageSpec
from pipeline.devices.decoding import cache_of
from pipeline.devices.worker import Text, available_cores, session_options
from pipeline.graph.files import graph_file, load_model, save_model
from pipeline.metrics.language import divergence, log_probabilities
from pipeline.plan.build import make_plan
from pipeline.quantize.cache import attentions
from pipeline.quantize.stored_cache import store_cache

_WINDOW, _WINDOWS = 1024, 16
_FULL, _SHORT = 4096, 512
_TURNS, _PROMPTS = 15, 3
_LONG = f"""
extends = "phone"
[tasks.text-generation]
shape = {{ sequence_length = 128, context_length = {_FULL} }}
"""


def _graph(recipe: str, bits: int) -> Path:
    """The small Llama's graph that ships."""
    place = folder() / "weights" / "tinylm"
    plan = make_plan(Job(model=str(place), target="phone", recipe=recipe, scheme={"cache": bits}))
    names = [stage.name for stage in plan.stages]
    last = "write" if "write" in names else "trace.float"
    made = run_plan(replace(plan, stages=plan.stages[: names.index(last) + 1]))
    return graph_file(made[last].path)


@cache
def _divergence(recipe: str, bits: int) -> float:
    """From the float model, nats a token, over held-out documents in windows as long as the context."""
    ids = tinylm.windows(tinylm.held_out()).numpy().reshape(-1)[: _WINDOW * _WINDOWS].reshape(-1, 1, _WINDOW)
    sessions = [(_session(_graph(*each)), CACHES[each[1]]) for each in (("fp32", 32), (recipe, bits))]
    return float(np.mean([divergence(*(_said(*each, window) for each in sessions)) for window in ids]))


def _session(file: Path) -> ort.InferenceSession:
    return ort.InferenceSession(file, session_options(available_cores(), {}), providers=["CPUExecutionProvider"])


def _said(session: ort.InferenceSession, dtype: str, ids: np.ndarray) -> np.ndarray:
    past = {entry.name: np.zeros((1, entry.shape[1], 0, entry.shape[3]), dtype) for entry in session.get_inputs()[2:]}
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), **past}
    return log_probabilities(session.run(["logits"], feed)[0][0, :-1])


def _alone() -> Measured:
    return Measured(_divergence("fp32", 8), _divergence("fp32", 16))


def _added() -> Measured:
    rounded = _divergence("w4a8-language", 32)
    return Measured(_divergence("w4a8-language", 8) - rounded, rounded)


@cache
def _times() -> dict[str, dict[int, float]]:
    """By dtype, seconds: of one token behind so many others (positive), and of a prompt of so many (negative)."""
    shape = SHAPES["1b"]
    language = LanguageSpec(
        **{"layers": shape.layers, "heads": shape.groups, "queries": shape.heads, "size": shape.hidden // shape.heads},
        **{"hidden": shape.hidden, "vocabulary": shape.words, "longest": _FULL},
    )
    with tempfile.TemporaryDirectory() as scratch:
        model = write_llama(Path(scratch) / "model", shape)
        target = Path(scratch) / "long.toml"
        target.write_text(_LONG, encoding="utf-8")
        make_graph(model, Path(scratch) / "store", proven=False, target=str(target))
        plain = min(Path(scratch).glob("store/objects/*/model.onnx.data"), key=lambda file: file.stat().st_size)
        files = {"float32": plain.with_suffix(""), "int8": Path(scratch) / "model.onnx"}
        graph = load_model(files["float32"])
        sizes = np.ones((language.heads, language.size), np.float32)
        names = [str(value.name) for node in attentions(graph.graph) for value in node.outputs[1:]]
        store_cache(graph, 8, dict.fromkeys(names, sizes))
        save_model(graph, files["int8"])
        kept = cache_of(language)
        texts = {dtype: Text(_session(file), replace(kept, dtype=dtype)) for dtype, file in files.items()}
        return {dtype: dict(found) for dtype, found in _in_turns(texts).items()}


def _in_turns(texts: dict[str, Text]) -> dict[str, dict[int, float]]:
    ids = np.random.default_rng(0).integers(3, 4000, _FULL).tolist()
    found: dict[str, dict[int, list[float]]] = {dtype: {} for dtype in texts}
    calls = [(-_FULL, _FULL, 0, _PROMPTS), *((place, 1, place - 1, _TURNS) for place in (_SHORT, _FULL))]
    for key, tokens, before, turns in calls:
        for turn in range(turns + 1):
            for dtype, text in texts.items():
                begin = time.perf_counter()
                text.read(ids[:tokens], before)
                found[dtype].setdefault(key, []).extend([time.perf_counter() - begin] if turn else [])
    return {dtype: {key: float(np.median(s)) for key, s in times.items()} for dtype, times in found.items()}


def _slowdown() -> Measured:
    own, plain = _times()["int8"], _times()["float32"]
    return Measured(own[_FULL] / own[_SHORT], plain[_FULL] / plain[_SHORT])


def _full_speed() -> Measured:
    return Measured(_times()["float32"][_FULL] / _times()["int8"][_FULL], 1e3 * _times()["float32"][_FULL])


def _prompt() -> Measured:
    return Measured(_times()["int8"][-_FULL] / _times()["float32"][-_FULL], _times()["float32"][-_FULL])


ROWS = [
    Row("tinylm.kv8.kl", "nats a token", "float16 keys and values (weights are float)", _alone),
    Row("tinylm.kv8.kl_added", "nats a token", "w4a8-language with keys and values in float, from float", _added),
    Row("decode.kv8.slowdown_4096", "x", "the same with float keys and values (4096 tokens against 512)", _slowdown),
    Row("decode.kv8.speed_4096", "x", "float keys and values, ms a token at 4096 tokens", _full_speed),
    Row("decode.kv8.prefill_ratio", "x", "float keys and values, s for a prompt of 4096 tokens", _prompt),
]
