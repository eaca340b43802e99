"""Models with another number of heads in every layer export, and ONNX Runtime answers as PyTorch does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from pipeline.compress.edits import replay
from pipeline.compress.prune.units_heads import attention_heads
from pipeline.graph.files import save_model
from pipeline.trace.canonical import canonicalize
from pipeline.trace.examples import example_inputs
from pipeline.trace.parity import check_parity
from pipeline.trace.to_onnx import trace

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "attn_implementation": "eager"}
TEXT = {"vocab_size": 50, "max_position_embeddings": 64}
GROUPED = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8, "use_cache": False}


@pytest.mark.parametrize(
    ("prefix", "config", "data"),
    [
        pytest.param("Bert", TEXT | {"num_attention_heads": 4}, "text", marks=pytest.mark.slow),
        ("ViT", {"num_attention_heads": 4, "image_size": 16, "patch_size": 8}, "image"),
        pytest.param("Llama", TEXT | GROUPED, "text", marks=pytest.mark.slow),
    ],
)
def test_other_counts_in_every_layer_export(prefix: str, config: dict[str, object], data: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = getattr(transformers, f"{prefix}Config")(**SMALL, **config)
    model = getattr(transformers, f"{prefix}Model")(settings).eval()
    first, second = attention_heads(model)
    replay(model, [first.edit((2,)).model_dump(mode="json"), second.edit((0, 1, 3)).model_dump(mode="json")])
    names = ["input_ids", "attention_mask"] if data == "text" else ["pixel_values"]
    examples = example_inputs(model, data, names, batch=2, length=16, seed=0)
    graph = trace(model, examples, 21)
    canonicalize(graph, prefix="")
    save_model(graph, tmp_path / "model.onnx")
    others = example_inputs(model, data, names, batch=3, length=21, seed=1)
    assert check_parity(model, tmp_path / "model.onnx", [examples, others]) < 1e-5
