"""Finding and vetting models: what is accepted, what is refused and how that is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.config.recipe import Recipe
from pipeline.core.errors import StageError, UsageError
from pipeline.source.model import resolve_model
from pipeline.source.sentence_modules import sentence_modules
from pipeline.source.torch_model import load_float_model, pool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The least that is a model: a config and weights."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    save_file({"w": torch.zeros(2, 3)}, made / "model.safetensors")
    return made


def refusal(folder: Path | str, **options: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        resolve_model(str(folder), **options)  # type: ignore[arg-type]
    return caught.value


def test_a_folder_is_a_source(folder: Path) -> None:
    source = resolve_model(str(folder))
    assert (source.name, source.path, source.task.name) == ("model", folder, "feature-extraction")
    assert not source.sentence_transformer


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertModel", "feature-extraction"),
        ("BertForSequenceClassification", "text-classification"),
        ("ViTForImageClassification", "image-classification"),
    ],
)
def test_the_task_is_told_from_the_architecture(folder: Path, architecture: str, task: str) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    assert resolve_model(str(folder)).task.name == task


def test_the_task_can_be_named(folder: Path) -> None:
    assert resolve_model(str(folder), task="text-classification").task.name == "text-classification"
    assert ["Unknown task 'text-clasification'", " Did you mean 'text-classification'?"][0] in str(
        refusal(folder, task="text-clasification")
    )


def test_a_task_that_cannot_be_told(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": ["BertForPreTraining"]}))
    error = refusal(folder)
    assert error.message == "The task of 'model' cannot be told from its architecture (BertForPreTraining)."
    assert error.remedy.startswith("Name it with --task. Allowed: feature-extraction,")


def test_names_that_are_nothing(tmp_path: Path) -> None:
    assert refusal("nothing").message == "There is no model 'nothing': no such folder."
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file").remedy == (
        "Give the folder that holds config.json and model.safetensors, an .onnx file, or file.py:factory."
    )


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    assert refusal(tmp_path).message == f"The folder {tmp_path.name!r} has no config.json."


def test_a_config_that_is_not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert refusal(folder).message.startswith("config.json of 'model' is not valid JSON:")


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refusal(folder).message == "The folder 'model' has no weights."


def test_pickles_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refusal(folder).message == (
        "The folder 'model' has its weights only as a pickle (pytorch_model.bin), which can run any code."
    )


@pytest.mark.parametrize(
    ("found", "said"), [({"quant_method": "fp8"}, "fp8"), ("awq", "quantization_config in config.json")]
)
def test_a_checkpoint_of_other_codes_is_refused(folder: Path, found: object, said: str) -> None:
    config = {"model_type": "bert", "architectures": ["BertModel"], "quantization_config": found}
    (folder / "config.json").write_text(json.dumps(config))
    assert refusal(folder).message == (
        f"The weights of 'model' are quantized already ({said}), in a form that is not read; gptq, awq, "
        "compressed-tensors and GGUF are."
    )


def test_truncated_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-4])
    assert refusal(folder).message == (
        "The weights file model.safetensors of 'model' is damaged: "
        f"its header promises {size} bytes, it has {size - 4}."
    )
    weights.write_bytes(b"\x10")
    assert "has no valid safetensors header" in refusal(folder).message


def test_shards(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "one.safetensors"}}))
    assert resolve_model(str(folder)).name == "model"
    index.write_text(json.dumps({"weight_map": {"w": "one.safetensors", "v": "two.safetensors"}}))
    assert "'two.safetensors' named in model.safetensors.index.json is missing" in refusal(folder).message
    index.write_text(json.dumps({"weight_map": {"w": "../secret.safetensors"}}))
    assert "which is outside the model's folder" in refusal(folder).message


def test_code_in_the_model_runs_only_on_request(folder: Path) -> None:
    config = {"architectures": ["BertModel"], "auto_map": {"AutoModel": "code.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "runs code of its own" in refusal(folder).message
    assert resolve_model(str(folder), trust_remote_code=True).name == "model"


def test_the_digest_is_of_the_contents(folder: Path, tmp_path: Path) -> None:
    digest = resolve_model(str(folder)).digest
    (folder / "README.md").write_text("words")
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert resolve_model(str(tmp_path / "elsewhere")).digest == digest
    (folder / "tokenizer.json").write_text("{}")
    with_tokenizer = resolve_model(str(folder)).digest
    save_file({"w": torch.ones(2, 3)}, folder / "model.safetensors")
    assert len({digest, with_tokenizer, resolve_model(str(folder)).digest}) == 3


def test_a_head_without_weights_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(StageError) as caught:
        load_float_model(tiny_bert, "AutoModelForSequenceClassification", trust_remote_code=False)
    assert "has no weights for 'classifier.bias' and 1 more" in caught.value.message
    assert "they would be random" in caught.value.message


def test_a_weight_of_another_shape_than_the_config_asks_for(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    rows = config["vocab_size"]
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 10}))
    with pytest.raises(StageError) as caught:
        load_float_model(folder, "AutoModel", trust_remote_code=False)
    width = config["hidden_size"]
    assert caught.value.message == (
        f"The checkpoint 'model' has 'embeddings.word_embeddings.weight' as [{rows}, {width}]; "
        f"its config.json asks for [10, {width}]."
    )


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("cls", [1.0, 8.0]), ("mean", [2.0, 6.0]), ("max", [3.0, 8.0]), ("mean_sqrt_len", [4 / 2**0.5, 12 / 2**0.5])],
)
def test_pooling_by_hand(mode: str, expected: list[float]) -> None:
    """Tokens (1, 8), (3, 4) and a masked (100, 100)."""
    hidden = torch.tensor([[[1.0, 8.0], [3.0, 4.0], [100.0, 100.0]]])
    torch.testing.assert_close(pool(hidden, torch.tensor([[1, 1, 0]]), mode), torch.tensor([expected]))


@pytest.mark.parametrize(
    ("mode", "mask", "expected"),
    [
        ("lasttoken", [1, 1, 0], [3.0, 4.0]),
        ("lasttoken", [0, 1, 1], [100.0, 100.0]),
        ("weightedmean", [1, 1, 0], [(1 * 1 + 2 * 3) / 3, (1 * 8 + 2 * 4) / 3]),
    ],
)
def test_pooling_of_decoders_by_hand(mode: str, mask: list[int], expected: list[float]) -> None:
    hidden = torch.tensor([[[1.0, 8.0], [3.0, 4.0], [100.0, 100.0]]])
    torch.testing.assert_close(pool(hidden, torch.tensor([mask]), mode), torch.tensor([expected]))


def test_sentence_modules_that_cannot_be_exported(tiny_encoder: Path, tmp_path: Path) -> None:
    assert sentence_modules(tiny_encoder) == ("mean", True)
    copy = tmp_path / "dense"
    shutil.copytree(tiny_encoder, copy)
    modules = json.loads((copy / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UsageError, match="is built of Transformer, Pooling, Dense, Normalize"):
        sentence_modules(copy)


def test_a_model_without_a_name() -> None:
    assert refusal("").message == "The name of the model is empty."


def test_declared_inputs_of_a_hugging_face_model_are_refused(tiny_encoder: Path) -> None:
    recipe = Recipe.model_validate({"name": "r", "title": "r", "scheme": "fp32", "inputs": {"input_ids": {}}})
    with pytest.raises(UsageError) as caught:
        resolve_model(str(tiny_encoder), recipe=recipe)
    assert caught.value.message == (
        f"The recipe 'r' has [inputs]; {str(tiny_encoder)!r} is a Hugging Face model, whose files say what it takes."
    )
