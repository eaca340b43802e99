"""Attention over keys and values in fewer bits: the graph, run by ONNX Runtime, against the same in float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from cached_attention import GROUPS, HEADS, LONGEST, attention
from numpy.typing import NDArray

from pipeline.core.errors import StageError
from pipeline.devices.worker import Language, Text
from pipeline.quantize.stored_cache import store_cache


def session(model: ir.Model) -> ort.InferenceSession:
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])


def stored(model: ir.Model, bits: int, size: int = 16) -> ir.Model:
    magnitudes = {name: np.full((GROUPS, size), 3.5, np.float32) for name in ("key", "value")}
    store_cache(model, bits, magnitudes)
    return model


def read(
    run: ort.InferenceSession, ids: NDArray[np.int64], mask: NDArray[np.int64], past: list[NDArray[Any]]
) -> list[Any]:
    return run.run(None, {"input_ids": ids, "attention_mask": mask, "past.key": past[0], "past.value": past[1]})


def nothing(batch: int, dtype: str, size: int = 16) -> list[NDArray[Any]]:
    return [np.zeros((batch, GROUPS, 0, size), dtype)] * 2


IDS = np.random.default_rng(1).integers(0, 50, (1, 20))


def in_parts(run: ort.InferenceSession, dtype: str, *ends: int, size: int = 16) -> NDArray[Any]:
    """What comes of `IDS` that are read up to each of the ends in turn."""
    past, found, begin = nothing(1, dtype, size), [], 0
    for end in ends:
        output, *past = read(run, IDS[:, begin:end], np.ones((1, end), np.int64), past)
        found.append(output)
        begin = end
    return np.concatenate(found, axis=1)


FORMS: list[dict[str, Any]] = [
    {},
    {"packed": True},
    {"turned": 0},
    {"turned": 16, "size": 32},  # half of each head
    {"local_window_size": 4},
    {"softcap": 5.0, "scale": 0.5},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_int8_is_the_same_however_a_text_is_read(form: dict[str, Any]) -> None:
    """A prompt is attended to in float, single tokens by the operator over codes."""
    size = form.get("size", 16)
    in_float = in_parts(session(attention(**form)), "float32", 20, size=size)
    run = session(stored(attention(**form), 8, size))
    whole = in_parts(run, "int8", 20, size=size)
    assert 0.001 < np.abs(whole - in_float).mean() / np.abs(in_float).mean() < 0.03
    assert in_parts(run, "int8", *range(1, 21), size=size) == pytest.approx(whole, abs=2e-5)
    assert in_parts(run, "int8", 7, 8, 20, size=size) == pytest.approx(whole, abs=2e-5)


def test_float16_is_close_to_float() -> None:
    in_float = in_parts(session(attention()), "float32", 20)
    run = session(stored(attention(), 16))
    for ends in ((20,), (5, 20), tuple(range(1, 21))):
        found = in_parts(run, "float16", *ends)
        assert np.abs(found - in_float).max() < 0.01
        assert found.dtype == np.float32


def test_codes_are_those_of_the_operator() -> None:
    """What a prompt leaves against what single tokens leave."""
    run = session(stored(attention(), 8))
    _, *of_prompt = read(run, IDS, np.ones((1, 20), np.int64), nothing(1, "int8"))
    past = nothing(1, "int8")
    for end in range(1, 21):
        _, *past = read(run, IDS[:, end - 1 : end], np.ones((1, end), np.int64), past)
    for one, other in zip(of_prompt, past, strict=True):
        assert one.dtype == np.int8
        assert np.abs(one.astype(int) - other).max() <= 1
        assert (one != other).mean() < 0.001  # positions between two codes


def test_texts_of_two_lengths_run_together() -> None:
    run = session(stored(attention(), 8))
    ids = np.random.default_rng(2).integers(0, 50, (2, 9))
    mask = np.ones((2, 8), np.int64)
    mask[1, 5:] = 0
    _, *past = read(run, ids[:, :8], mask, nothing(2, "int8"))
    longer = np.concatenate([mask, [[1], [0]]], axis=1)
    longer[1, 5] = 1
    both, *_ = read(run, ids[:, 8:], longer, past)
    short = np.concatenate([ids[1:, :5], ids[1:, 8:]], axis=1)
    alone, *_ = read(run, short, np.ones((1, 6), np.int64), nothing(1, "int8"))
    assert both[1, 0] == pytest.approx(alone[0, -1], abs=2e-5)


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.int8), (16, np.float16)])
def test_past_and_present_may_be_one_buffer(bits: int, dtype: type) -> None:
    run = session(stored(attention(), bits))
    language = Language(GROUPS, 16, LONGEST, ("past.key", "past.value"), ("key", "value"), np.dtype(dtype).name)
    text = Text(run, language)
    found = [text.read(IDS[0, begin:end].tolist(), begin) for begin, end in ((0, 7), (7, 8), (8, 15), (15, 16))]
    apart = in_parts(run, np.dtype(dtype).name, 7, 8, 15, 16)
    assert np.concatenate(found) == pytest.approx(apart[0], abs=1e-5)


def test_a_graph_without_attention_is_refused() -> None:
    model = attention()
    for node in list(model.graph):
        if node.op_type == "GroupQueryAttention":
            node.op_type = "Other"
    with pytest.raises(StageError, match="The graph has no attention over kept keys and values, which"):
        store_cache(model, 8, {})


def test_inputs_and_outputs_keep_their_names_and_shapes() -> None:
    graph = stored(attention(), 8).graph
    kinds = {value.name: (value.dtype, str(value.shape)) for value in (*graph.inputs, *graph.outputs)}
    past, present = (ir.DataType.INT8, "[batch,2,past,16]"), (ir.DataType.INT8, "[batch,2,n,16]")
    assert [kinds[name] for name in ("past.key", "past.value", "key", "value")] == [past, past, present, present]
    assert kinds["logits"] == (ir.DataType.FLOAT, "[batch,new,128]")
    assert {"key.scale", "value.scale"} <= set(graph.initializers)


def test_what_onnx_writes_is_what_it_reads(tmp_path: Path) -> None:
    ir.save(stored(attention(), 8), tmp_path / "m.onnx")
    run = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert in_parts(run, "int8", 20).shape == (1, 20, HEADS * 16)
