"""Folders of models with an encoder and a decoder: what is told of them from their JSON files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import DecoderSpec
from pipeline.source.lengths import longest_text
from pipeline.source.model import resolve_model

T5 = {
    **{"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": True},
    **{"pad_token_id": 0, "decoder_start_token_id": 0},
}
WHISPER = {
    **{"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "is_encoder_decoder": True},
    **{"pad_token_id": 7, "decoder_start_token_id": 8, "max_target_positions": 32},
}


def folder(place: Path, config: dict[str, Any], *files: str) -> Path:
    save_file({"w": np.zeros(2, np.float32)}, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(config))
    for name in files:
        (place / name).write_text("{}")
    return place


def refusal(place: Path, task: str | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        resolve_model(str(place), task)
    return caught.value


@pytest.mark.parametrize(
    "architecture", ["T5ForConditionalGeneration", "BartForConditionalGeneration", "MarianMTModel"]
)
def test_texts_to_texts(tmp_path: Path, architecture: str) -> None:
    source = resolve_model(str(folder(tmp_path, {**T5, "architectures": [architecture]}, "tokenizer.json")))
    assert (source.task.name, source.decoder) == ("text2text-generation", DecoderSpec(start=0, pad=0))
    assert source.spec("next_tokens").decoder == source.decoder


def test_speech_to_text_is_speech_recognition_too(tmp_path: Path) -> None:
    place = str(folder(tmp_path, WHISPER, "preprocessor_config.json"))
    for task in (None, "speech-to-text", "automatic-speech-recognition"):
        source = resolve_model(place, task)
        assert (source.task.name, source.task.data) == ("speech-to-text", "audio")
        assert source.decoder == DecoderSpec(start=8, pad=7, longest=32)
    longest = longest_text(source)
    assert longest is not None and (longest.tokens, longest.said_by) == (32, "the decoder's positions in config.json")


def test_generation_settings_say_how_texts_start(tmp_path: Path) -> None:
    place = folder(tmp_path, {**T5, "decoder_start_token_id": None}, "tokenizer.json")
    (place / "generation_config.json").write_text('{"decoder_start_token_id": 5}')
    source = resolve_model(str(place))
    assert source.decoder is not None and source.decoder.start == 5


def test_the_encoder_alone(tmp_path: Path) -> None:
    source = resolve_model(str(folder(tmp_path, T5, "tokenizer.json")), "feature-extraction")
    assert (source.task.name, source.decoder) == ("feature-extraction", None)
    encoder = {**T5, "architectures": ["T5EncoderModel"], "is_encoder_decoder": False}
    error = refusal(folder(tmp_path, encoder, "tokenizer.json"), "text2text-generation")
    assert error.message == (
        "text2text-generation takes models with an encoder and a decoder; config.json of "
        f"{tmp_path.name!r} does not say is_encoder_decoder."
    )


def test_a_task_of_one_graph(tmp_path: Path) -> None:
    error = refusal(folder(tmp_path, T5, "tokenizer.json"), "text-classification")
    assert error.message == (
        f"{tmp_path.name!r} (T5ForConditionalGeneration) has an encoder and a decoder; text-classification takes "
        "models with one graph."
    )
    assert error.remedy == (
        "Leave --task out, or name text2text-generation; feature-extraction exports its encoder alone, if it takes "
        "texts."
    )


def test_a_decoder_without_an_encoder_is_none(tmp_path: Path) -> None:
    """Models of images and texts are called so too."""
    config = {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava"}
    error = refusal(folder(tmp_path, config, "tokenizer.json"))
    assert error.message.startswith(f"The task of {tmp_path.name!r} cannot be told from its architecture")


@pytest.mark.parametrize(
    ("config", "files", "message"),
    [
        (
            {**T5, "decoder_start_token_id": None},
            ["tokenizer.json"],
            "config.json of {name!r} has no decoder_start_token_id: nothing says which token the decoder starts with.",
        ),
        (
            {**T5, "decoder_start_token_id": "<pad>"},
            ["tokenizer.json"],
            "config.json of {name!r}: decoder_start_token_id is '<pad>', not the number of a token.",
        ),
        (
            T5,
            [],
            "The folder {name!r} has no tokenizer: nothing says how texts become the encoder's inputs.",
        ),
        (
            WHISPER,
            ["tokenizer.json"],
            "The folder {name!r} has no preprocessor_config.json: nothing says how recordings become the encoder's "
            "inputs.",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, config: dict[str, Any], files: list[str], message: str) -> None:
    assert refusal(folder(tmp_path, config, *files)).message == message.format(name=tmp_path.name)


def test_other_sources_have_no_decoder(tmp_path: Path) -> None:
    import onnx  # noqa: PLC0415  # only here
    from onnx import TensorProto, helper  # noqa: PLC0415

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "m.onnx")
    error = refusal(tmp_path / "m.onnx", "text2text-generation")
    assert error.message == "text2text-generation takes a Hugging Face folder; 'm.onnx' is none."
