"""The encoder of T5: its plain model needs a decoder's inputs too, and its own checkpoints lack the decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

from pipeline.source.torch_model import load_float_model

CONFIG = T5Config(
    vocab_size=50,
    d_model=16,
    d_kv=8,
    d_ff=32,
    num_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    decoder_start_token_id=0,
)


@pytest.mark.parametrize("kind", [T5EncoderModel, T5ForConditionalGeneration])
def test_texts_are_embedded_by_the_encoder_alone(tmp_path: Path, kind: Any) -> None:
    torch.manual_seed(0)
    given = kind(CONFIG).eval()
    given.save_pretrained(tmp_path)
    loaded = load_float_model(tmp_path, "AutoModel", trust_remote_code=False)
    ids = torch.tensor([[3, 4, 5]])
    expected = given.get_encoder()(input_ids=ids).last_hidden_state
    torch.testing.assert_close(loaded(input_ids=ids).last_hidden_state, expected)
