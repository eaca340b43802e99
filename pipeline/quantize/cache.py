"""Stage function: how large the keys and values get that a language model keeps, for the scales of int8 codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.data.samples import open_samples
from pipeline.graph.edit import CONTRIB, constant, name_of
from pipeline.graph.files import graph_file, graphs_in, load_model
from pipeline.numerics.affine import Float
from pipeline.numerics.cache_scales import rotated_magnitudes
from pipeline.runtime.session import parallel_float_session
from pipeline.trace.pack_attention import ATTENTION

MAGNITUDES = "magnitudes.safetensors"
_TOKENS = 512
"""Tokens that are read in one go: logits of all of them are computed."""
_COSINES, _SINES = 7, 8


def run(context: StageContext) -> StageMetadata:
    """Writes `magnitudes.safetensors`: of each output with keys or values the largest magnitude of every channel,
    float32 [heads, size]. Calibration texts are read one behind the other in windows as long as the context, so that
    keys and values are seen at late positions too; of keys that the attention operator turns it is the largest that
    they have at any position."""
    language = context.model.language
    assert language is not None  # noqa: S101  # the plan has this stage for language models only
    angles = _angles(load_model(graph_file(context.inputs["graph"].path)).graph)
    session = parallel_float_session(graphs_in(context.inputs["graph"].path))
    windows = list(_windows(context, language.longest))
    found: dict[str, Float] = {}
    for number, ids in enumerate(windows, start=1):
        for name, states in _states(session, ids).items():
            seen = _magnitudes(states[0], angles.get(name), language.longest)
            found[name] = np.maximum(found.get(name, seen), seen)
        context.progress(number, len(windows))
    save_file(found, context.out / MAGNITUDES)
    text = max(len(ids) for ids in windows)
    unturned = [name for name in found if name.endswith("key") and name not in angles]
    return {
        "windows": len(windows),
        "tokens": sum(len(ids) for ids in windows),
        "notes": [_short(text, language.longest)] if unturned and text < language.longest else [],
    }


def _short(seen: int, longest: int) -> str:
    return (
        f"Calibration texts have {seen} tokens together, and the context {longest}: how large keys get at later "
        "positions is not known, and those beyond what was seen are cut (--calibration-data)."
    )


def read_magnitudes(artifact: Artifact) -> dict[str, Float]:
    """By the names of outputs."""
    return dict(load_file(artifact.file(MAGNITUDES)))


def attentions(graph: ir.Graph) -> list[ir.Node]:
    """The nodes that attend to kept keys and values."""
    return [node for node in graph if node.op_type == ATTENTION and node.domain == CONTRIB]


def _angles(graph: ir.Graph) -> dict[str, NDArray[np.float64]]:
    """By the names of outputs with keys that the operator turns, the angles of one position, float64 [pairs]."""
    found = {}
    for node in attentions(graph):
        if node.attributes.get_int("do_rotary", 0):
            cosines, sines = (constant(node.inputs[place]) for place in (_COSINES, _SINES))
            assert cosines is not None and sines is not None  # noqa: S101  # they are written as constants
            found[name_of(node.outputs[1])] = np.arctan2(sines[1].astype(np.float64), cosines[1])
    return found


def _windows(context: StageContext, longest: int) -> Iterator[NDArray[np.int64]]:
    """The tokens of calibration texts in windows of `longest`: as many windows as evaluation may read tokens for, one
    at least."""
    rows = open_samples(context.inputs["samples"].path).select(["input_ids"])
    wanted = longest * -(-int(context.model.head["tokens"]) // longest)
    kept: list[NDArray[np.int64]] = []
    for row in rows:
        kept.append(row["input_ids"][0])
        if sum(map(len, kept)) >= wanted:
            break
    ids = np.concatenate(kept)[:wanted] if kept else np.zeros(0, np.int64)
    if not len(ids):
        raise StageError("No calibration text has a token: how large keys and values get cannot be known.")
    for begin in range(0, len(ids), longest):
        yield ids[begin : begin + longest]


def _states(session: ort.InferenceSession, ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Keys and values of a text, [1, heads, tokens, size] by the names of outputs."""
    past, present = _caches(session.get_inputs()), [entry.name for entry in session.get_outputs()[1:]]
    states = {entry.name: np.zeros((1, entry.shape[1], 0, entry.shape[3]), np.float32) for entry in past}
    for begin in range(0, len(ids), _TOKENS):
        new = ids[None, begin : begin + _TOKENS]
        mask = np.ones((1, begin + new.shape[1]), np.int64)
        found = session.run(present, {"input_ids": new, "attention_mask": mask, **states})
        states = dict(zip(states, found, strict=True))
    return dict(zip(present, states.values(), strict=True))


def _caches(inputs: list[ort.NodeArg]) -> list[ort.NodeArg]:
    return [entry for entry in inputs if len(entry.shape) == 4]


def _magnitudes(states: Float, angles: NDArray[np.float64] | None, longest: int) -> Float:
    if angles is not None:
        return rotated_magnitudes(states, angles, longest)
    found: Float = np.abs(states).max(axis=1)
    return found
