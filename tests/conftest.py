"""Tiny ONNX files, and tiny models with random weights, made once per test run without the network.

torch and transformers are imported inside, so that tests which need neither start at once.
"""

from __future__ import annotations

import one_core  # noqa: F401

# isort: split
import json
import string
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures import warm_process  # noqa: F401  # one for all folders' tests
from hypothesis import settings
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

settings.register_profile("any machine", deadline=None)  # how long an example takes, its load decides
settings.load_profile("any machine")

Save = Callable[..., Path]
TraceModel = Callable[[Path, Path], Path]

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = """
the of and to in is it for on with as was at by this from or be are that not have you we they he she will
would can could one two three new old good bad big small first last long great little own other right high low next
early young few public same able phone car robot road board hand room door light water fire work time year day man
woman child world life part place case week company system program question model run read make find give tell ask
use need feel try leave call near over under after before while where when who what how why
"""
_LETTERS = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
VOCABULARY = list(dict.fromkeys([*_SPECIAL, *_LETTERS, *string.digits, *".,?!'-", *_WORDS.split()]))
"""About 200 pieces; every lower-case word can be spelled with them."""


@pytest.fixture
def save_model(tmp_path: Path) -> Save:
    """Writes a model with the float input `x` and the output `y`, and returns its path."""

    def save(
        nodes: Sequence[NodeProto],
        constants: dict[str, NDArray[np.generic]],
        shape: Sequence[int | str],
        name: str = "m",
    ) -> Path:
        graph = helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, key) for key, value in constants.items()],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        path = tmp_path / f"{name}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        return path

    return save


@pytest.fixture
def matmul(save_model: Save) -> Path:
    """y = relu(x [rows, 64] @ w [64, 32])."""
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    return save_model(nodes, {"w": weight}, ["rows", 64], "matmul")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Of `matmul`: x = ones [4, 64], and an array that the model does not take."""
    from pipeline.runtime.feeds import write_feed  # noqa: PLC0415

    path = tmp_path / "inputs.npz"
    write_feed(path, {"x": np.ones((4, 64), np.float32), "unused": np.zeros(3)})
    return path


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BertModel folder: 2 layers, 2 heads, hidden size 32, 128 FFN neurons, float32 safetensors, a tokenizer.

    The FFN's products and the word table have enough values to be quantized; attention's have too few.
    """
    import torch  # noqa: PLC0415
    from transformers import BertConfig, BertModel  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
        initializer_range=0.2,  # the default 0.02 gives outputs that hardly depend on the input
    )
    model = BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # else biases are 0 and gains 1, which hides mistakes
    model.save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_bert` as a sentence encoder: with sentence-transformers' mean pooling and normalization."""
    folder = tmp_path_factory.mktemp("encoders") / "tiny-encoder"
    folder.mkdir()
    for file in tiny_bert.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, place) in enumerate(places.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    for name, content in (("1_Pooling/config.json", pooling), ("sentence_bert_config.json", {"max_seq_length": 64})):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def trace_model() -> TraceModel:
    """Traces the model in a folder into another one, as the `trace` stage does; returns the artifact's folder."""
    from model_specs import hugging_face  # noqa: PLC0415

    from pipeline.core.artifact import seal  # noqa: PLC0415
    from pipeline.core.stage import MODEL, StageContext  # noqa: PLC0415
    from pipeline.core.types import silent  # noqa: PLC0415
    from pipeline.trace.to_onnx import run  # noqa: PLC0415

    def trace(model: Path, out: Path) -> Path:
        source = hugging_face(model)
        out.mkdir()
        facts = run(StageContext({"opset": 23, "max_length": 64}, {}, out, silent, models={MODEL: source}))
        seal(out, "trace.float", "0" * 64, {}, facts)
        return out

    return trace


@pytest.fixture(scope="session")
def tiny_trace(tiny_bert: Path, trace_model: TraceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact folder of `tiny_bert` traced to float ONNX: `model.onnx`, its data, `graphs.json`."""
    return trace_model(tiny_bert, tmp_path_factory.mktemp("traces") / "tiny-bert")


@pytest.fixture(scope="session")
def save_tokenizer() -> Callable[..., int]:
    """Writes a tokenizer of the test vocabulary into a folder, and returns how many tokens it has; arguments by name go
    to transformers' class (`model_input_names`, `model_max_length`)."""
    return _save_tokenizer


def _save_tokenizer(folder: Path, **settings: object) -> int:
    from tokenizers import Tokenizer  # noqa: PLC0415
    from tokenizers.models import WordPiece  # noqa: PLC0415
    from tokenizers.normalizers import BertNormalizer  # noqa: PLC0415
    from tokenizers.pre_tokenizers import BertPreTokenizer  # noqa: PLC0415
    from tokenizers.processors import TemplateProcessing  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    ids = {piece: index for index, piece in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token=_SPECIAL[1]))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(piece, ids[piece]) for piece in ("[CLS]", "[SEP]")],
    )
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    names = {f"{piece.strip('[]').lower()}_token": piece for piece in _SPECIAL}
    given = {"model_max_length": 64, "model_input_names": inputs, **names, **settings}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **given).save_pretrained(folder)
    return len(VOCABULARY)
