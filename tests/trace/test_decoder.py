"""A language model's graph, run by ONNX Runtime token by token, against transformers' own generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from language_models import ARCHITECTURES, CONTEXT, save_language_model
from model_specs import hugging_face
from safetensors.torch import load_file, save_file
from transformers import GPTNeoConfig, GPTNeoForCausalLM

from pipeline.core.errors import StageError
from pipeline.core.model_spec import LanguageSpec
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import silent
from pipeline.devices.decoding import cache_of
from pipeline.devices.worker import Text
from pipeline.graph.files import load_model, save_model
from pipeline.quantize.stored_cache import store_cache
from pipeline.runtime.generation import most_likely, written
from pipeline.source.language import language_of
from pipeline.source.torch_model import load_float_model
from pipeline.trace import decoder
from pipeline.trace.to_onnx import run

TOKENS = 60
OUTSIDE = ("phi4-mini", "smollm3", "cohere", "glm4", "stablelm", "gpt-neox")
"""Positions that the operator cannot turn: of pairs side by side, of too few values of a head, of some layers only."""
Traced = tuple[Path, tuple[Path, LanguageSpec, list[str]]]


def exported(folder: Path, out: Path) -> tuple[Path, LanguageSpec, list[str]]:
    language = language_of(folder, trust_remote_code=False)
    spec = hugging_face(
        folder,
        auto_class="AutoModelForCausalLM",
        task="text-generation",
        family="language_model",
        output="logits",
        language=language,
    )
    out.mkdir()
    facts = run(StageContext({"opset": 23, "max_length": 32}, {}, out, silent, models={MODEL: spec}))
    return out / "model.onnx", language, facts["notes"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, save_tokenizer: Callable[[Path], int]) -> Callable[[str], Path]:
    """The folder of a model of an architecture."""

    def save(name: str) -> Path:
        folder = tmp_path_factory.mktemp("language") / name
        return save_language_model(folder, name, save_tokenizer(folder))

    return save


@pytest.fixture(scope="module")
def llama(saved: Callable[[str], Path]) -> Traced:
    folder = saved("llama")
    return folder, exported(folder, folder.parent / "out")


def test_greedy_text_equals_that_of_transformers(llama: Traced) -> None:
    folder, (file, language, notes) = llama
    assert notes == []
    _same_text(folder, file, language)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "llama"])
def test_greedy_text_of_other_architectures(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = saved(name)
    file, language, notes = exported(folder, tmp_path / "out")
    outside = name in OUTSIDE
    assert [note.split(":")[0] for note in notes] == (
        ["The graph is exported with positions that are turned outside of attention"] if outside else []
    )
    _same_text(folder, file, language)
    _same_in_8_bits(file, language)


def _same_in_8_bits(file: Path, language: LanguageSpec) -> None:
    """A text with INT8 keys and values, read at once and token by token."""
    model = load_model(file)
    store_cache(model, 8, dict.fromkeys(language.outputs, np.full((language.heads, language.size), 6.0, np.float32)))
    save_model(model, file.with_name("int8.onnx"))
    session = ort.InferenceSession(file.with_name("int8.onnx"), providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(4, language.vocabulary, 20).tolist()
    one, other = (Text(session, cache_of(language.stored(8))) for _ in range(2))
    whole = one.read(ids, 0)
    single = np.concatenate([other.read([token], place) for place, token in enumerate(ids)])
    assert single == pytest.approx(whole, abs=1e-4 * float(whole.std()))


def _same_text(folder: Path, file: Path, language: LanguageSpec) -> None:
    model = load_float_model(folder, "AutoModelForCausalLM", trust_remote_code=False)
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    endless = language.model_copy(update={"ends": ()})
    for length in (3, 9):
        prompt = np.random.default_rng(length).integers(4, language.vocabulary, length).tolist()
        said = [token for token, _ in zip(written(session, endless, prompt, most_likely), range(TOKENS), strict=False)]
        expected = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=TOKENS, eos_token_id=None, pad_token_id=0
        )
        assert said == expected[0, length:].tolist()
        assert len(set(said)) > 3  # no model that says one word


def test_one_graph_has_a_free_batch_length_and_past(llama: Traced) -> None:
    _, (file, language, _) = llama
    graph = load_model(file).graph
    assert {value.name: [str(size) for size in value.shape or ()] for value in graph.inputs} == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "total"],
        **{name: ["batch", "2", "past", "16"] for name in language.inputs},
    }
    operators = [node.op_type for node in graph]
    assert operators.count("GroupQueryAttention") == 2
    assert operators.count("RMSNormalization") == 5
    assert operators.count("MatMul") == 2 * 5 + 1  # queries, keys and values are one
    assert "Reshape" not in operators
    assert "Cos" not in operators
    tables = [value.shape for name, value in graph.initializers.items() if "cos" in name]
    assert tables == [(CONTEXT, 8)]


def test_what_the_operator_cannot_turn_is_turned_before_it_and_said(
    llama: Traced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("tables of another kind")

    monkeypatch.setattr(decoder, "_register_tables", refuse)
    folder, _ = llama
    file, language, (note,) = exported(folder, tmp_path / "out")
    assert note.startswith("The graph is exported with positions that are turned outside of attention: ")
    assert "tables of another kind" in note
    assert "RotaryEmbedding" in {node.op_type for node in load_model(file).graph}
    _same_text(folder, file, language)


def test_matrices_that_are_no_numbers_are_named(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """They are read one at a time, and never stand in the model."""
    folder = saved("qwen2")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.inf
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError) as raised:
        exported(folder, tmp_path / "out")
    assert raised.value.message == (
        "The model's weights 'model.layers.1.mlp.up_proj.weight' hold values that are not finite (NaN or infinity)."
    )


def test_a_model_that_computes_attention_by_itself_is_refused(
    tmp_path: Path, save_tokenizer: Callable[[Path], int]
) -> None:
    sizes = {
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global"], 2]],
        "eos_token_id": 3,
        "bos_token_id": 2,
    }
    config = GPTNeoConfig(vocab_size=save_tokenizer(tmp_path / "neo"), max_position_embeddings=CONTEXT, **sizes)
    GPTNeoForCausalLM(config).save_pretrained(tmp_path / "neo")
    with pytest.raises(StageError) as raised:
        exported(tmp_path / "neo", tmp_path / "out")
    assert raised.value.message == (
        "GPTNeoForCausalLM computes attention by itself; text-generation takes models that hand it to a function of "
        "choice (transformers' AttentionInterface)."
    )


def test_a_padded_batch_gives_each_text_the_logits_that_it_has_alone(
    llama: Traced,
) -> None:
    _, (file, language, _) = llama
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    texts = [[5, 9, 7, 20, 11], [8, 6]]
    ids, mask = np.zeros((2, 5), np.int64), np.zeros((2, 5), np.int64)
    for place, text in enumerate(texts):
        ids[place, : len(text)], mask[place, : len(text)] = text, 1
    (together,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask, **language.empty(2)})
    for place, text in enumerate(texts):
        alone = {"input_ids": np.array([text]), "attention_mask": np.ones((1, len(text)), np.int64)}
        (expected,) = session.run(["logits"], alone | language.empty())
        np.testing.assert_allclose(together[place, : len(text)], expected[0], atol=1e-4)
