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
from pipeline.core.model_spec import LanguageSpec, ModelSpec
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.data.encode import load_tokenizer
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
    they have at any position. Then tokens of the vocabulary are read: texts of one kind lack those of others, whose
    keys may be larger (line ends, digits, what begins and ends a text)."""
    language = context.model.language
    assert language is not None  # noqa: S101  # the plan has this stage for language models only
    angles = _angles(load_model(graph_file(context.inputs["graph"].path)).graph)
    session = parallel_float_session(graphs_in(context.inputs["graph"].path))
    windows = list(_windows(context, language))
    found: dict[str, Float] = {}
    for number, (_, ids) in enumerate(windows, start=1):
        for name, states in _states(session, ids).items():
            seen = _magnitudes(states[0], angles.get(name), language.longest)
            found[name] = np.maximum(found.get(name, seen), seen)
        context.progress(number, len(windows))
    save_file(found, context.out / MAGNITUDES)
    text = max(len(ids) for is_text, ids in windows if is_text)
    unturned = [name for name in found if name.endswith("key") and name not in angles]
    return {
        "windows": len(windows),
        "tokens": sum(len(ids) for _, ids in windows),
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


def _windows(context: StageContext, language: LanguageSpec) -> Iterator[tuple[bool, NDArray[np.int64]]]:
    """(whether it is text, tokens) of windows of up to `language.longest` tokens, which begin as texts do: as many as
    evaluation may read, one at least, and the same number from the vocabulary."""
    begin = [] if language.begin is None else [language.begin]
    room = language.longest - len(begin)
    wanted = room * -(-int(context.model.head["tokens"]) // room)
    for is_text, ids in ((True, _texts(context, wanted)), (False, _vocabulary(context.model, language)[:wanted])):
        for place in range(0, len(ids), room):
            yield is_text, np.concatenate([np.array(begin, np.int64), ids[place : place + room]])


def _texts(context: StageContext, wanted: int) -> NDArray[np.int64]:
    """The first tokens of calibration texts, one text behind the other."""
    kept: list[NDArray[np.int64]] = []
    for row in open_samples(context.inputs["samples"].path).select(["input_ids"]):
        kept.append(row["input_ids"][0])
        if sum(map(len, kept)) >= wanted:
            break
    ids = np.concatenate(kept)[:wanted] if kept else np.zeros(0, np.int64)
    if not len(ids):
        raise StageError("No calibration text has a token: how large keys and values get cannot be known.")
    return ids


def _vocabulary(model: ModelSpec, language: LanguageSpec) -> NDArray[np.int64]:
    """All tokens in a drawn order, behind those that the tokenizer was given one by one, which chat templates use."""
    added = load_tokenizer(model.tokenizer_folder, model.trust_remote_code).get_added_vocab().values()
    first = [token for token in sorted(added) if token < language.vocabulary]
    drawn = np.random.default_rng(0).permutation(language.vocabulary)
    return np.concatenate([np.array(first, np.int64), drawn])


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
