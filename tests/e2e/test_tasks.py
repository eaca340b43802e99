"""Tasks beyond embeddings, from the command line: tiny models with random weights, labelled data."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WORDS = [["the", "dog", "sees", "bread"], ["a", "cat", "wants", "the", "river"], ["two", "captains", "paint"]]


@pytest.fixture(scope="session")
def tiny_tagger(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertForTokenClassification  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("taggers") / "tiny-tagger"
    shutil.copytree(tiny_bert, folder)
    config = BertConfig.from_pretrained(tiny_bert, num_labels=3, num_hidden_layers=1)
    _save(BertForTokenClassification, config, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import YolosConfig, YolosForObjectDetection  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("detectors") / "tiny-detector"
    config = YolosConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=[32, 32],
        patch_size=8,
        num_detection_tokens=6,
        use_mid_position_embeddings=False,
        num_labels=3,
        initializer_range=0.3,
    )
    _save(YolosForObjectDetection, config, folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "YolosImageProcessor",
                "size": {"height": 32, "width": 32},
                "resample": 2,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            }
        )
    )
    return folder


@pytest.fixture(scope="session")
def tiny_listener(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (  # noqa: PLC0415
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForSequenceClassification,
    )

    folder = tmp_path_factory.mktemp("listeners") / "tiny-listener"
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=128,
        conv_dim=[16, 16],
        conv_kernel=[10, 8],
        conv_stride=[8, 8],
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=16,
        num_labels=2,
    )
    _save(Wav2Vec2ForSequenceClassification, config, folder)
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    return folder


def _save(kind: type, config: object, folder: Path) -> None:
    import torch  # noqa: PLC0415

    torch.manual_seed(0)
    kind(config).eval().save_pretrained(folder)  # type: ignore[call-arg,attr-defined]


def report(edge, workspace: Path, model: Path, data: str, *flags: str) -> dict[str, object]:
    arguments = ("--model", str(model), "--target", "lenient", "--eval-data", data, "--output", "out")
    done = edge("export", *arguments, "--calibration-data", data, "--calibration-samples", "4", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((workspace / "out/report.json").read_text())


def test_token_classification(edge, workspace, tiny_tagger) -> None:
    lines = [json.dumps({"tokens": words, "labels": [i % 3 for i in range(len(words))]}) for words in WORDS * 2]
    (workspace / "tags.jsonl").write_text("\n".join(lines))
    found = report(edge, workspace, tiny_tagger, "tags.jsonl")
    (accuracy,) = found["accuracy"]
    assert (accuracy["primary"], accuracy["labelled"], accuracy["samples"]) == ("macro_f1", True, 6)
    assert {"token_accuracy", "token_accuracy_float", "agreement"} <= set(accuracy["scores"])
    assert found["quantization"]["outputs"][0]["sqnr_db"] > 10
    assert found["quantization"]["scores"]["agreement"] > 0.5


def test_labels_that_the_model_does_not_know(edge, workspace, tiny_tagger) -> None:
    (workspace / "tags.jsonl").write_text(json.dumps({"tokens": ["the", "dog"], "labels": [0, 3]}))
    done = edge(
        "export", "--model", str(tiny_tagger), "--target", "lenient", "--recipe", "w4", "--eval-data", "tags.jsonl"
    )
    assert done.returncode == 2
    assert "The data set 'tags' has the label 3; the model has 3 classes (0 to 2)." in done.stderr


@pytest.mark.slow  # test_output_tasks judges a detector that it trained
def test_object_detection(edge, workspace, tiny_detector) -> None:
    generator = np.random.default_rng(0)
    for name in ("images", "labels"):
        (workspace / "objects" / name).mkdir(parents=True)
    for index in range(4):
        pixels = generator.integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(workspace / f"objects/images/{index}.png")
        (workspace / f"objects/labels/{index}.txt").write_text(f"{index % 3} 0.5 0.5 0.4 0.4\n")
    found = report(edge, workspace, tiny_detector, "objects")
    (accuracy,) = found["accuracy"]
    assert (accuracy["primary"], accuracy["labelled"]) == ("map_50_95", True)
    assert accuracy["scores"]["map_50_of_float"] > 0.3
    assert {"logits", "pred_boxes"} <= {output["name"] for output in found["quantization"]["outputs"]}


def test_audio_classification(edge, workspace, tiny_listener) -> None:
    generator = np.random.default_rng(0)
    for index in range(4):
        folder = workspace / "recordings" / ("no", "yes")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        with wave.open(str(folder / f"{index}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(generator.integers(-9000, 9000, 4000).astype("<i2").tobytes())
    found = report(edge, workspace, tiny_listener, "recordings")
    (accuracy,) = found["accuracy"]
    assert (accuracy["primary"], accuracy["samples"]) == ("accuracy", 4)


METRIC = """
import numpy as np

def closeness(outputs, references):
    wanted = np.array([float(row["wanted"]) for row in references])
    found = np.array([output["sentence_embedding"][0, 0] for output in outputs])
    return 100 - float(np.abs(wanted - found).mean())
"""


def test_a_metric_of_ones_own(edge, tiny, workspace) -> None:
    count = len((workspace / "evaluation.txt").read_text().splitlines())
    (workspace / "mine.py").write_text(METRIC)
    (workspace / "wanted.csv").write_text("wanted\n" + "0.5\n" * count)
    flags = ("--metric", "mine.py:closeness", "--references", "wanted.csv")
    done = edge("export", *tiny, *flags)
    assert done.returncode == 0, done.stderr
    (exported,) = json.loads((workspace / "out/report.json").read_text())["accuracy"]
    assert (exported["primary"], exported["labelled"]) == ("closeness", True)
    assert exported["drop"] == pytest.approx(exported["scores"]["closeness_float"] - exported["scores"]["closeness"])
    done = edge("gate", "--target", "lenient", "--output", "out", *flags)
    assert done.returncode == 0, done.stderr
    gated = json.loads((workspace / "out/report.json").read_text())
    assert gated["accuracy"][0] == exported
    assert gated["quantization"]["outputs"]
    (workspace / "wanted.csv").write_text("wanted\n0.5\n")
    done = edge("export", *tiny, *flags)
    assert done.returncode == 2
    assert f"There are 1 references for the {count} samples of 'evaluation'." in done.stderr
