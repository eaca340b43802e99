"""The names and files that clients look for, and the models that they cannot load."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from model_specs import hugging_face

from pipeline.bundle.client_files import write_client_files
from pipeline.bundle.client_layouts import graph_files, reads_states, require_layout
from pipeline.config.target import Layout
from pipeline.core.errors import UsageError
from pipeline.core.types import Scheme

PHONE, SERVER, LAPTOP = ("asimd", "asimddp"), ("avx2", "avx512_vnni"), ("avx2",)


@pytest.mark.parametrize(
    ("layout", "bits", "isa", "expected"),
    [
        ("single", 8, PHONE, "{}.onnx"),
        ("transformers.js", 8, PHONE, "onnx/{}_quantized.onnx"),
        ("transformers.js", 4, PHONE, "onnx/{}_q4.onnx"),
        ("transformers.js", 16, PHONE, "onnx/{}_fp16.onnx"),
        ("transformers.js", 32, PHONE, "onnx/{}.onnx"),
        ("optimum", 4, PHONE, "{}_quantized.onnx"),
        ("optimum", 16, PHONE, "{}.onnx"),
        ("sentence-transformers", 8, PHONE, "onnx/{}_qint8_arm64.onnx"),
        ("sentence-transformers", 8, SERVER, "onnx/{}_qint8_avx512_vnni.onnx"),
        ("sentence-transformers", 8, LAPTOP, "onnx/{}_qint8_avx2.onnx"),
        ("sentence-transformers", 8, (), "onnx/{}_qint8.onnx"),
        ("sentence-transformers", 4, PHONE, "onnx/{}_q4.onnx"),
    ],
)
def test_names_of_graphs(layout: Layout, bits: Any, isa: tuple[str, ...], expected: str) -> None:
    assert graph_files(layout, Scheme(name="s", weights=bits), isa) == expected


def test_weights_that_a_client_has_no_name_for_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        graph_files("optimum", Scheme(name="s", weights=2), PHONE)
    assert caught.value.message == "The bundle's layout has no name for a graph of 2-bit weights."
    assert caught.value.remedy == "It has names for weights of 32, 16, 8, 4 bits; --layout single takes any."


def encoder(folder: Path, pooling: str = "mean") -> Path:
    """The description of a sentence encoder."""
    (folder / "1_Pooling").mkdir()
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 512, "do_lower_case": true}')
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": pooling}))
    return folder


def source(folder: Path, **changes: Any) -> Any:
    """A model source, as far as its layout depends on it."""
    own = {"kind": "huggingface", "name": "m", "path": folder, "task": "feature-extraction"}
    own |= {"sentence_transformer": (folder / "modules.json").is_file(), **changes}
    return SimpleNamespace(**{**own, "task": SimpleNamespace(name=own["task"])})


ALL_BUT_SENTENCES = "Layouts that this model can have: single, mapped, both, transformers.js, optimum."
PLAIN = "Layouts that this model can have: single, mapped, both."


@pytest.mark.parametrize(
    ("layout", "changes", "message", "remedy"),
    [
        (
            "sentence-transformers",
            {"task": "text-classification"},
            "The layout 'sentence-transformers' has no names for text-classification.",
            ALL_BUT_SENTENCES,
        ),
        (
            "sentence-transformers",
            {},
            "The layout 'sentence-transformers' needs the modules.json of a sentence encoder, which 'm' does not have.",
            ALL_BUT_SENTENCES,
        ),
        (
            "optimum",
            {"kind": "factory"},
            "The layout 'optimum' needs the config.json of a Hugging Face folder, which 'm' does not have.",
            PLAIN,
        ),
        ("optimum", {"task": "speech-to-text"}, "The layout 'optimum' has no names for speech-to-text.", PLAIN),
    ],
)
def test_models_that_a_client_cannot_load(
    tmp_path: Path, layout: Layout, changes: dict[str, Any], message: str, remedy: str
) -> None:
    with pytest.raises(UsageError) as caught:
        require_layout(layout, source(tmp_path, **changes))
    assert (caught.value.message, caught.value.remedy) == (message, remedy)


def test_a_pooling_that_a_client_does_not_know(tmp_path: Path) -> None:
    folder = encoder(tmp_path, "max")
    require_layout("sentence-transformers", source(folder))  # it reads the folder's own description
    with pytest.raises(UsageError) as caught:
        require_layout("transformers.js", source(folder))
    assert caught.value.message == "The layout 'transformers.js' has no word for the pooling 'max' of 'm'."


def test_states_are_for_clients_that_pool(tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    assert reads_states("optimum", source(folder))
    assert not reads_states("both", source(folder))
    assert not reads_states("optimum", source(folder, sentence_transformer=False))


def test_sentence_transformers_cuts_texts_where_the_bundle_does(tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "bundle"
    for folder in (model, out):
        folder.mkdir()
    spec = hugging_face(encoder(model))
    written = write_client_files(out, "sentence-transformers", spec, Scheme(name="s"), 48)
    assert sorted(written) == ["1_Pooling/config.json", "modules.json", "sentence_bert_config.json"]
    settings = json.loads((out / "sentence_bert_config.json").read_text())
    assert settings == {"max_seq_length": 48, "do_lower_case": True}
    assert json.loads((out / "1_Pooling/config.json").read_text()) == {"pooling_mode": "mean"}


def test_transformers_js_is_told_which_file_to_take(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    spec = hugging_face(tmp_path)
    assert write_client_files(tmp_path, "transformers.js", spec, Scheme(name="s", weights=4), 48) == []
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {"model_type": "bert", "transformers.js_config": {"dtype": "q4"}}


def test_transformers_js_is_told_the_steps_that_an_image_processor_does_by_default(tmp_path: Path) -> None:
    """Without do_normalize and do_resize it would do neither."""
    (tmp_path / "config.json").write_text("{}")
    given = {"image_processor_type": "MobileNetV2ImageProcessor", "size": {"shortest_edge": 256}, "do_rescale": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    spec = hugging_face(tmp_path, task="image-classification", data="image")
    write_client_files(tmp_path, "transformers.js", spec, Scheme(name="s"), 48)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == given | {
        **{"do_resize": True, "do_normalize": True, "do_center_crop": True, "rescale_factor": 1 / 255},
    }
