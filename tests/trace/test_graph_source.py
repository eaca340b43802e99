"""An encoder and a decoder by themselves say what the whole model says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pipeline.core.model_spec import DecoderSpec, ModelSpec
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import silent
from pipeline.graph.files import graphs_in
from pipeline.runtime.session import parallel_session
from pipeline.tasks.next_tokens import DECODER_INPUTS
from pipeline.trace import to_onnx
from pipeline.trace.graph_source import halves

_TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1, "decoder_start_token_id": 2}
_LAYERS: dict[str, int] = {
    f"{part}_{name}": size
    for part in ("encoder", "decoder")
    for name, size in {"layers": 1, "attention_heads": 2, "ffn_dim": 32}.items()
}
SIZES: dict[str, dict[str, Any]] = {
    "T5": {"d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
    "Bart": {**_LAYERS, "max_position_embeddings": 32},
    "Marian": {**_LAYERS, "max_position_embeddings": 32, "decoder_vocab_size": 50},
    "Whisper": {**_LAYERS, "max_source_positions": 20, "max_target_positions": 16, "num_mel_bins": 8},
}


def made(kind: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vocab_size=50, d_model=16, **_TOKENS, **SIZES[kind])
    head = "MarianMTModel" if kind == "Marian" else f"{kind}ForConditionalGeneration"
    model = getattr(transformers, head)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.set_attn_implementation("eager")
    return model


def encoder_case(kind: str) -> dict[str, torch.Tensor]:
    """Two samples; of texts, the second is padded."""
    if kind == "Whisper":
        return {"input_features": torch.randn(2, 8, 40)}
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 5:] = 0
    return {"input_ids": torch.randint(3, 50, (2, 9)), "attention_mask": mask}


@pytest.mark.parametrize("kind", list(SIZES))
def test_the_halves_together_are_the_model(kind: str) -> None:
    model, case = made(kind), encoder_case(kind)
    encoder, decoder = halves(model, [case], longest=12)
    assert [source.name for source in (encoder, decoder)] == ["encoder_model", "decoder_model"]
    (given,) = decoder.cases
    with torch.inference_mode():
        whole = model(**case, decoder_input_ids=given["input_ids"]).logits
        states = encoder.module(**case).last_hidden_state
        logits = decoder.module(**given | {"encoder_hidden_states": states}).logits
    torch.testing.assert_close(logits, whole)
    masked = {"encoder_attention_mask": "attention_mask"} if kind != "Whisper" else {}
    feeds = {"input_ids": DECODER_INPUTS, "encoder_hidden_states": "last_hidden_state", **masked}
    assert (encoder.feeds, decoder.feeds) == ({}, feeds)


def test_the_decoder_is_given_no_more_tokens_than_it_takes() -> None:
    cases = [{"input_ids": torch.randint(3, 50, (2, length))} for length in (16, 30)]
    full = [case | {"attention_mask": torch.ones_like(case["input_ids"])} for case in cases]
    _, decoder = halves(made("T5"), full, longest=12)
    assert [tuple(case["input_ids"].shape) for case in decoder.cases] == [(2, 10), (2, 12)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["T5", "Whisper"])
def test_two_graphs_that_run_as_the_model_does(tmp_path: Path, kind: str) -> None:
    """Of lengths that they were not traced with."""
    model, folder, out = made(kind), tmp_path / "model", tmp_path / "out"
    model.save_pretrained(folder)
    out.mkdir()
    speech = kind == "Whisper"
    if not speech:
        _save_tokenizer(folder)
    spec = ModelSpec(
        name=kind,
        kind="huggingface",
        digest="d",
        task="speech-to-text" if speech else "text2text-generation",
        auto_class="AutoModelForSpeechSeq2Seq" if speech else "AutoModelForSeq2SeqLM",
        family="next_tokens",
        data="audio" if speech else "text",
        output="logits",
        path=folder,
        decoder=DecoderSpec(start=2, pad=0, longest=16),
    )
    to_onnx.run(StageContext({"opset": 23, "max_length": 32}, {}, out, silent, models={MODEL: spec}))
    graphs = graphs_in(out)
    encoder, decoder = graphs
    length: list[str] = [] if speech else ["sequence"]
    assert list(decoder.inputs[0].shape) == ["batch", "decoder_sequence"]
    assert list(decoder.inputs[1].shape) == ["batch", *(length or [20]), 16]
    assert list(encoder.outputs[0].shape) == ["batch", *(length or [20]), 16]
    case = encoder_case(kind)
    given = torch.randint(3, 50, (2, 7))
    inputs = {name: tensor.numpy() for name, tensor in case.items()} | {DECODER_INPUTS: given.numpy()}
    (logits,) = parallel_session(graphs).run(["logits"], inputs)
    with torch.inference_mode():
        expected = model(**case, decoder_input_ids=given).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models  # noqa: PLC0415  # only here

    made = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))  # noqa: S106  # no password
    names = ["input_ids", "attention_mask"]
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=names).save_pretrained(folder)
