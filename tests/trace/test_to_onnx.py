from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn
from transformers import BertConfig, PreTrainedModel

from pipeline.core.errors import StageError
from pipeline.graph.files import TensorSpec, graphs_in
from pipeline.trace.to_onnx import trace

TraceModel = Callable[[Path, Path], Path]


@pytest.fixture(scope="module")
def encoder_trace(tiny_encoder: Path, trace_model: TraceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trace_model(tiny_encoder, tmp_path_factory.mktemp("traces") / "encoder")


def run(folder: Path, batch: int, length: int) -> list[np.ndarray]:
    """All outputs on random ids; the last row is padded."""
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    feed = {
        "input_ids": np.random.default_rng(0).integers(5, 150, (batch, length)),
        "attention_mask": np.ones((batch, length), np.int64),
        "token_type_ids": np.zeros((batch, length), np.int64),
    }
    feed["attention_mask"][-1, length // 2 + 1 :] = 0
    return [feed["attention_mask"], *session.run(None, feed)]


def test_tracing_again_gives_the_same_bytes(
    tiny_bert: Path, tiny_trace: Path, trace_model: TraceModel, tmp_path: Path
) -> None:
    again = trace_model(tiny_bert, tmp_path / "again")
    names = sorted(file.name for file in tiny_trace.iterdir())
    assert names == ["artifact.json", "graphs.json", "model.onnx", "model.onnx.data"]
    for name in names:
        assert (again / name).read_bytes() == (tiny_trace / name).read_bytes(), name


def test_facts_tell_parity_and_size(tiny_bert: Path, tiny_trace: Path) -> None:
    facts = json.loads((tiny_trace / "artifact.json").read_text())["facts"]
    assert facts["max_difference_to_torch"] < 1e-4
    assert facts["opset"] == 23
    header = (tiny_bert / "model.safetensors").read_bytes()
    stored = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
    shapes = [entry["shape"] for name, entry in stored.items() if name != "__metadata__"]
    assert facts["parameters"] == sum(int(np.prod(shape)) for shape in shapes)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 64), (5, 7)])
def test_any_batch_and_length_runs(tiny_trace: Path, batch: int, length: int) -> None:
    _, hidden, pooled = run(tiny_trace, batch, length)
    assert (hidden.shape, pooled.shape) == ((batch, length, 32), (batch, 32))
    assert np.isfinite(hidden).all()


def test_padding_changes_nothing(tiny_trace: Path) -> None:
    """The last row's five tokens alone and with eight padded places after them."""
    session = ort.InferenceSession(tiny_trace / "model.onnx", providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(5, 150, (1, 13))
    ones, mask = np.ones((1, 13), np.int64), (np.arange(13) < 5).astype(np.int64)[None]
    feeds = [
        {"input_ids": ids[:, :n], "attention_mask": m[:, :n], "token_type_ids": 0 * ids[:, :n]}
        for n, m in ((5, ones), (13, mask))
    ]
    alone, padded = (session.run(["last_hidden_state"], feed)[0][:, :5] for feed in feeds)
    np.testing.assert_allclose(padded, alone, rtol=1e-4, atol=1e-5)


def test_signature_is_that_of_the_file(tiny_trace: Path) -> None:
    (graph,) = graphs_in(tiny_trace)
    assert [entry.name for entry in graph.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert {entry.dtype for entry in graph.inputs} == {"int64"}
    assert graph.outputs == (
        TensorSpec(name="last_hidden_state", dtype="float", shape=("batch", "sequence", 32)),
        TensorSpec(name="pooler_output", dtype="float", shape=("batch", 32)),
    )


def test_sentence_encoder_pools_and_normalizes(encoder_trace: Path, tiny_trace: Path) -> None:
    """The mean of the unmasked token states, of length 1, computed by numpy from the model without pooling."""
    mask, hidden, _ = run(tiny_trace, 4, 11)
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    _, embedding = run(encoder_trace, 4, 11)
    np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5)


def test_sentence_encoder_has_the_names_of_the_model_inside(encoder_trace: Path, tiny_trace: Path) -> None:
    def products(folder: Path) -> set[str]:
        nodes = onnx.load(folder / "model.onnx", load_external_data=False).graph.node
        return {node.name for node in nodes if node.op_type == "MatMul" and node.input[1].endswith(".weight")}

    assert products(encoder_trace) == products(tiny_trace) - {"pooler.dense/MatMul"}


class Branching(PreTrainedModel):  # type: ignore[misc]  # transformers ships partial types
    """Its control flow depends on the values that it gets."""

    def __init__(self) -> None:
        super().__init__(BertConfig())
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.layer(x) if x.sum() > 0 else x}


class Unsupported(Branching):
    """ONNX has no operator for this."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": torch.linalg.eigvals(self.layer.weight).real.sum() + x}


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (
            Branching,
            "The model computes otherwise for other values, which a graph cannot; no --opset changes that. Write that "
            "place with torch.where or torch.cond, or give an .onnx file that was exported otherwise.",
        ),
        (Unsupported, "Run again with --debug for the exporter's full report, or try another --opset."),
    ],
)
def test_model_that_cannot_be_traced_is_named_in_one_line(kind: type[Branching], remedy: str) -> None:
    with pytest.raises(StageError) as caught:
        trace(kind(), {"x": torch.ones(4, 4)}, opset=21)
    assert caught.value.message.startswith(f"{kind.__name__} cannot be exported to ONNX opset 21: ")
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message  # the exporter's colours
    assert caught.value.remedy == remedy
