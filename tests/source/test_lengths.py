"""How many tokens a model takes, from the files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec
from pipeline.source.lengths import Longest, check_images, check_length, check_padding, check_tokenizer, longest_text
from pipeline.source.model import ModelSource
from pipeline.tasks.registry import TASKS

FIXED = {"ids": InputSpec(shape=("batch", 77), dtype="int32"), "x": InputSpec(shape=("batch", 5))}


def source(folder: Path, config: dict[str, Any], **changes: Any) -> ModelSource:
    given = {"kind": "huggingface", "task": TASKS.get("feature-extraction"), "sentence_transformer": False, **changes}
    return ModelSource(name="m", path=folder, entry="", digest="", config=config, **given)


@pytest.mark.parametrize(
    ("config", "tokens", "said_by"),
    [
        ({"max_position_embeddings": 77}, 77, "max_position_embeddings in config.json"),
        ({"text_config": {"max_position_embeddings": 64}}, 64, "max_position_embeddings in config.json"),
        ({"n_positions": 1024}, 1024, "n_positions in config.json"),
        (
            {"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1},
            512,
            "max_position_embeddings in config.json is 514",
        ),
        ({"max_position_embeddings": 514, "model_type": "mpnet"}, 512, "max_position_embeddings in config.json is 514"),
    ],
)
def test_positions(config: dict[str, Any], tokens: int, said_by: str, tmp_path: Path) -> None:
    assert longest_text(source(tmp_path, config)) == Longest(tokens, said_by)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"max_position_embeddings": "many"},
        {"max_position_embeddings": -1},
        {"max_position_embeddings": True},
        {"n_positions": 512, "relative_attention_num_buckets": 32},
    ],
)
def test_what_bounds_nothing(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert longest_text(source(tmp_path, config)) is None


def test_the_least_decides(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 300}))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 256}))
    config = {"max_position_embeddings": 512}
    assert longest_text(source(tmp_path, config)) == Longest(300, "model_max_length in tokenizer_config.json")
    encoder = source(tmp_path, config, sentence_transformer=True)
    assert longest_text(encoder) == Longest(256, "max_seq_length in sentence_bert_config.json")


def test_fixed_axis_of_a_graph(tmp_path: Path) -> None:
    given = source(tmp_path, {}, kind="onnx", inputs=FIXED)
    assert longest_text(given) == Longest(77, "the fixed axis of its inputs")


def test_images_have_no_tokens(tmp_path: Path) -> None:
    task = TASKS.get("image-classification")
    assert longest_text(source(tmp_path, {"max_position_embeddings": 77}, task=task)) is None


def test_longer_texts_are_refused(tmp_path: Path) -> None:
    given = source(tmp_path, {"max_position_embeddings": 77})
    check_length(given, 77)
    check_length(given, None)
    with pytest.raises(UsageError) as caught:
        check_length(given, 78)
    assert caught.value.message == (
        "--sequence-length 78 is more than 'm' takes: 77 tokens (max_position_embeddings in config.json)."
    )
    assert caught.value.remedy == "Give at most 77."


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({"model_type": "gpt2"}, True),
        ({"model_type": "llama", "pad_token_id": None}, True),
        ({"model_type": "gpt2", "pad_token_id": 0}, False),
        ({"model_type": "bert"}, False),
    ],
)
def test_decoder_that_classifies_needs_a_padding_token(config: dict[str, Any], refused: bool, tmp_path: Path) -> None:
    given = source(tmp_path, config, task=TASKS.get("text-classification"))
    if not refused:
        check_padding(given)
        return
    with pytest.raises(UsageError, match="has no pad_token_id") as caught:
        check_padding(given)
    assert "opset" not in caught.value.remedy


def test_a_text_task_of_a_folder_that_takes_images(tmp_path: Path) -> None:
    given = source(tmp_path, {})
    check_tokenizer(given)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(UsageError) as caught:
        check_tokenizer(given)
    assert caught.value.message == (
        "feature-extraction takes texts; the folder 'm' has a preprocessor_config.json and no tokenizer: its model "
        "takes images or sound."
    )
    (tmp_path / "vocab.txt").write_text("a")
    check_tokenizer(given)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "vit", "image_size": 32},
            "config.json of 'm' says images of 32 x 32 (image_size); its preprocessor_config.json makes 48 x 48.",
        ),
        (
            {"model_type": "resnet", "num_channels": 1},
            "config.json of 'm' says images of 1 channels (num_channels); folders of images have 3.",
        ),
    ],
)
def test_images_that_a_model_does_not_take(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check_images(source(tmp_path, config), (48, 48))
    assert caught.value.message == message


@pytest.mark.parametrize(
    "config",
    [{"model_type": "vit", "image_size": [48, 48]}, {"model_type": "convnext", "image_size": 224}, {}],
)
def test_images_that_it_takes(config: dict[str, Any], tmp_path: Path) -> None:
    check_images(source(tmp_path, config), (48, 48))
