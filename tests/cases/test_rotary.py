"""Encoders with rotary positions, and attention with a mask of one row, at the opset whose operators ONNX Runtime's
kernels take only when nothing has to be broadcast."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from model_specs import factory, tracing
from text_models import IDS, SMALL, save_text_model
from torch import Tensor, nn

import pipeline.trace.canonical
from pipeline.core.model_spec import InputSpec
from pipeline.graph.files import MODEL, graphs_in
from pipeline.trace.graph_source import GraphSource
from pipeline.trace.to_onnx import _proven

MODERN = {**SMALL, **IDS, "max_position_embeddings": 64, "local_attention": 8, "global_attn_every_n_layers": 2}
QWEN = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0}
QWEN["num_hidden_layers"] = 1  # they are all alike


def operators(folder: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(folder / "model.onnx", load_external_data=False).graph.node)


def facts_of(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))["facts"]
    return facts


def unmended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing was known of what the kernels refuse."""
    monkeypatch.setattr(pipeline.trace.canonical, "write_out_broadcasts", lambda graph: 0)  # noqa: ARG005


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("ModernBertModel", MODERN), pytest.param("Qwen3Model", QWEN, marks=pytest.mark.slow)],
)
def test_rotary_encoder_keeps_its_operators(
    kind: str, settings: dict[str, Any], save_tokenizer: Any, trace_model: Any, tmp_path: Path
) -> None:
    model = save_text_model(tmp_path / "model", kind, save_tokenizer, **settings)
    traced = trace_model(model, tmp_path / "traced")
    assert operators(traced)["RotaryEmbedding"] == 2 * settings["num_hidden_layers"]  # queries and keys
    assert facts_of(traced)["notes"] == []
    (graph,) = graphs_in(traced)
    assert [entry.name for entry in graph.outputs] == ["last_hidden_state"]  # and no cache


@pytest.mark.slow  # test_mask_of_keys_only goes the same way
def test_operator_that_onnx_runtime_refuses_is_written_out_and_said(
    save_tokenizer: Any, trace_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmended(monkeypatch)
    model = save_text_model(tmp_path / "model", "Qwen3Model", save_tokenizer, **QWEN)
    traced = trace_model(model, tmp_path / "traced")
    assert operators(traced)["RotaryEmbedding"] == 0
    (note,) = facts_of(traced)["notes"]
    assert note.startswith("The graph is exported with the operators of opset 22: ONNX Runtime ")
    assert "cannot run the exported graph on input_ids [2, 16]" in note and "RotaryEmbedding" in note
    assert facts_of(traced)["opset"] == 23


class Masked(nn.Module):
    """A sequence classifier of torch's own layers, whose mask is of keys only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.embed, self.encoder, self.head = nn.Embedding(50, 32), nn.TransformerEncoder(layer, 1), nn.Linear(32, 3)

    def forward(self, input_ids: Tensor, keep: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(input_ids), src_key_padding_mask=keep < 0)[:, 0])


SPECS = {
    "input_ids": InputSpec(shape=("batch", "tokens"), dtype="int64", values=50),
    "keep": InputSpec(shape=("batch", "tokens")),
}
SOURCE = factory(name="masked", data="text", inputs=SPECS)


def cases(shapes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    made = []
    for shape in shapes:
        keep = torch.rand(shape, generator=draw) - 0.3
        keep[:, 0] = 1  # a row without keys has no mean
        made.append({"input_ids": torch.randint(0, 50, shape, generator=draw), "keep": keep})
    return made


@pytest.mark.parametrize("mended", [True, False])
def test_mask_of_keys_only(mended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not mended:
        unmended(monkeypatch)
    shapes = [(2, 16), (3, 21), (1, 40)]
    made = _proven(
        GraphSource(MODEL, Masked().eval(), cases(shapes)), SOURCE, tracing(23, tmp_path), tmp_path / "model.onnx"
    )
    assert made.difference < 1e-5
    assert operators(tmp_path)["Attention"] == (1 if mended else 0)
    assert [("opset 22" in note) for note in made.notes] == ([] if mended else [True])


def test_lowest_opset_has_one_form(tmp_path: Path) -> None:
    made = _proven(
        GraphSource(MODEL, Masked().eval(), cases([(2, 16), (3, 21)])),
        SOURCE,
        tracing(22, tmp_path),
        tmp_path / "model.onnx",
    )
    assert made.notes == () and made.graph.opset_imports[""] == 22


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings"), [("ModernBertModel", MODERN), ("Qwen3Model", QWEN)])
def test_rotary_encoder_becomes_a_bundle(
    kind: str, settings: dict[str, Any], save_tokenizer: Any, edge: Callable[..., Any], workspace: Path
) -> None:
    save_text_model(workspace / "model", kind, save_tokenizer, **settings)
    flags = ["--calibration-data", "calibration.txt", "--calibration-samples", "16", "--eval-data", "evaluation.txt"]
    done = edge("export", "-m", "model", "-t", "lenient", *flags, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert (workspace / "out" / "bundle").is_dir()
