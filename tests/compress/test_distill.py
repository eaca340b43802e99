"""The distill pass on a tiny encoder: it recovers, repeats bit for bit, resumes exactly, and says what does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_specs import hugging_face
from safetensors.torch import load_file
from stages import run_pass

from pipeline.compress import PREVIOUS_PASS, TEACHER, TEACHER_OUTPUTS
from pipeline.compress.distill.config import Distill
from pipeline.compress.distill.run import run
from pipeline.compress.training import cached_teacher
from pipeline.core.artifact import Artifact
from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError, UsageError
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import Scheme, silent
from pipeline.data.samples import DATASET, write_samples
from pipeline.source.torch_model import load_source

Train = Callable[..., dict[str, Any]]
Trained = tuple[Path, dict[str, Any]]
_CONFIG = {
    **{"steps": 24, "batch_size": 32, "held_out": 0.1, "learning_rate": 3e-3, "evaluate_every": 8, "judge_samples": 16},
    "losses": {"similarity": 10.0, "embedding_cosine": 0.1},
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Eight hundred texts of random tokens."""
    folder = tmp_path_factory.mktemp("training")
    generator = np.random.default_rng(1)
    lengths = [3 + number % 9 for number in range(800)]
    write_samples(
        folder,
        (
            {"input_ids": generator.integers(5, 180, (1, n)), "attention_mask": np.ones((1, n), np.int64)}
            for n in lengths
        ),
    )
    record = {"name": "texts", "labels": None, "samples": 800}
    (folder / DATASET).write_text(pretty_json(record))
    return Artifact(folder, "samples.training.1", "k", "d", {})


@pytest.fixture(scope="module")
def halved(tiny_encoder: Path, texts: Artifact, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The tiny encoder with the first of its two layers."""
    out = tmp_path_factory.mktemp("halved") / "out"
    table = {"pass": "prune", "unit": "layers", "keep": [0], "samples": 16}
    return run_pass(table, hugging_face(tiny_encoder), {"calibration": texts}, out)[1]


@pytest.fixture
def train(tiny_encoder: Path, texts: Artifact, halved: dict[str, Artifact], tmp_path: Path) -> Train:
    return _training(tiny_encoder, texts, halved, tmp_path)


@pytest.fixture(scope="module")
def trained(
    tiny_encoder: Path, texts: Artifact, halved: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """The folder and the facts of a run without changes."""
    place = tmp_path_factory.mktemp("trained")
    return place / "out", _training(tiny_encoder, texts, halved, place)()


def _training(tiny_encoder: Path, texts: Artifact, halved: dict[str, Artifact], place: Path) -> Train:
    def call(name: str = "out", progress: Callable[[int, int], None] = silent, **changes: Any) -> dict[str, Any]:
        source = changes.pop("source", hugging_face(tiny_encoder))
        models = {MODEL: source, TEACHER: changes.pop("teacher", source)}
        inputs = changes.pop("inputs", {**halved, "training": texts})
        values = {
            "pass": Distill(**{**_CONFIG, **changes.pop("config", {})}).model_dump(mode="json"),
            "scheme": Scheme(name="fp32").model_dump(mode="json"),
            "limits": {},
        }
        out, scratch = place / name, place / changes.pop("scratch", f"{name}.scratch")
        out.mkdir(exist_ok=True)
        return run(StageContext(values, inputs, out, progress, scratch, models))

    return call


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def test_training_recovers_and_says_how(trained: Trained) -> None:
    folder, facts = trained
    scores = [point["score"] for point in facts["held_out"]]
    assert max(scores) > scores[0]
    assert facts["metric_after"]["drop"] < facts["metric_before"]["drop"]
    assert facts["curve"][-1]["loss"] < facts["curve"][0]["loss"]
    assert [point["step"] for point in facts["held_out"]] == [0, 8, 16, 24]
    assert facts["best_step"] == facts["held_out"][int(np.argmax(scores))]["step"]
    assert facts["teacher"] == "the model before all passes"
    assert facts["parameters_before"] == facts["parameters_after"]
    assert json.loads((folder / "edits.json").read_text())[0]["edit"] == "keep_layers"


def test_the_same_seed_gives_the_same_bytes(train: Train, trained: Trained, tmp_path: Path) -> None:
    train("again")
    train("other", config={"seed": 1})
    folders = trained[0], tmp_path / "again", tmp_path / "other"
    first, again, other = ((folder / "weights.safetensors").read_bytes() for folder in folders)
    assert again == first
    assert other != first


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(train: Train, tmp_path: Path, accumulate: int) -> None:
    config = {"checkpoint_every": 3, "accumulate": accumulate}

    class KilledError(Exception):
        pass

    def kill(done: int, _: int) -> None:
        if done == 8:
            raise KilledError

    with pytest.raises(KilledError):
        train("killed", kill, config=config)
    seen: list[int] = []
    facts = train("killed", lambda done, _: seen.append(done), config=config)
    assert seen[0] == 7  # after the checkpoint of step 6
    undisturbed = train("whole", config=config)
    assert facts == undisturbed
    left, right = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("killed", "whole"))
    assert left == right


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best(train: Train, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"the loss is not finite at step \d+ of 24; training stopped") as caught:
        train(config={"learning_rate": 1e36, "max_grad_norm": 1e30})
    assert "The best weights so far, of step 0, are kept" in caught.value.remedy
    assert (tmp_path / "out.scratch/best.safetensors").is_file()


def test_patience_ends_training(train: Train) -> None:
    facts = train(config={"learning_rate": 1e-12, "patience": 2, "evaluate_every": 1})
    assert facts["stopped_after"] < facts["steps"]


def test_features_and_attention_can_be_matched(train: Train) -> None:
    facts = train(config={"losses": {"hidden_mse": 1.0, "hidden_cosine": 1.0, "attention_relation": 1.0}})
    assert set(facts["losses"]) == {"hidden_mse", "hidden_cosine", "attention_relation"}
    assert facts["curve"][-1]["loss"] < facts["curve"][0]["loss"]


def test_a_student_that_is_its_teacher(train: Train, texts: Artifact) -> None:
    with pytest.raises(StageError, match="the student is the teacher"):
        train(inputs={"calibration": texts, "training": texts})


def test_an_earlier_pass_makes_the_teacher(
    train: Train, texts: Artifact, halved: dict[str, Artifact], tmp_path: Path
) -> None:
    """Its outputs are what counts: a student that agrees with the teacher starts at a perfect score."""
    train("tuned", config={"learning_rate": 1e-2})
    tuned = Artifact(tmp_path / "tuned", "compress.1.distill", "k", "d", {})
    inputs = {**halved, "training": texts, TEACHER: tuned, PREVIOUS_PASS: tuned}
    with pytest.raises(StageError, match="the student is the teacher"):
        train("same", inputs=inputs)
    copy = Artifact(Path(shutil.copytree(tuned.path, tmp_path / "copy")), PREVIOUS_PASS, "k", "d", {})
    facts = train("after", inputs={**inputs, PREVIOUS_PASS: copy})
    assert facts["teacher"] == "the model as an earlier pass trained it"
    assert facts["held_out"][0]["score"] == pytest.approx(1.0, abs=1e-6)


def test_recorded_outputs_train_as_the_teacher_does(
    train: Train,
    trained: Trained,
    tiny_encoder: Path,
    texts: Artifact,
    halved: dict[str, Artifact],
    tmp_path: Path,
) -> None:
    live = trained[1]
    folder = tmp_path / "teacher"
    folder.mkdir()
    models = {MODEL: hugging_face(tiny_encoder)}
    cached_teacher.run(StageContext({}, {"training": texts}, folder, silent, models=models))
    outputs = Artifact(folder, "teacher.1", "k", "d", {})
    facts = train("again", inputs={**halved, "training": texts, TEACHER_OUTPUTS: outputs})
    for key in ("curve", "held_out"):
        for point, expected in zip(facts[key], live[key], strict=True):
            assert point == pytest.approx(expected, abs=1e-4)


def test_frozen_parameters_keep_their_values(
    train: Train, trained: Trained, tiny_encoder: Path, tmp_path: Path
) -> None:
    train("held", config={"freeze": ("embeddings.*", "*.bias")})
    before = load_source(hugging_face(tiny_encoder)).state_dict()
    free, held = weights(trained[0]), weights(tmp_path / "held")
    frozen = {name for name in held if name.startswith("embeddings.") or name.endswith(".bias")}
    assert frozen <= {name for name in held if torch.equal(before[name], held[name])}
    assert not torch.equal(before["encoder.layer.0.output.dense.weight"], held["encoder.layer.0.output.dense.weight"])
    assert not torch.equal(before["embeddings.word_embeddings.weight"], free["embeddings.word_embeddings.weight"])


def test_a_pattern_that_freezes_nothing(train: Train) -> None:
    with pytest.raises(StageError, match=r"distill: 'embedding\.\*' in freeze matches no parameter"):
        train(config={"freeze": ("embedding.*",)})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"losses": {"soft_labels": 1.0}}, "the loss 'soft_labels' is not defined for this task"),
        ({"held_out": 0.01}, "held_out = 0.01 of 800 training samples are 8 to judge by; at least 11 are needed"),
        ({"batch_size": 721}, "720 training samples do not fill a batch of 721"),
        (
            {"layers": (3,), "losses": {"hidden_mse": 1.0}},
            r"layers = \[3\] does not fit 1 student blocks and 2 teacher blocks",
        ),
    ],
)
def test_what_does_not_fit_is_said(train: Train, config: dict[str, Any], message: str) -> None:
    with pytest.raises(StageError, match=message):
        train(config=config)


def test_hard_labels_need_labels(train: Train, tiny_encoder: Path) -> None:
    source = hugging_face(tiny_encoder, family="classifier", sentence_transformer=False)
    with pytest.raises(StageError, match="the loss 'hard_labels' needs class labels, which 'texts' does not have"):
        train(source=source, config={"losses": {"hard_labels": 1.0}})


def test_a_teacher_with_another_vocabulary(train: Train, tiny_encoder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny_encoder.rglob("*"):
        if file.is_file():
            (other / file.relative_to(tiny_encoder)).parent.mkdir(exist_ok=True)
            (other / file.relative_to(tiny_encoder)).write_bytes(file.read_bytes())
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(StageError, match="the teacher 'other' has another vocabulary than 'tiny-encoder'"):
        train(teacher=hugging_face(other, digest="e"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"losses": {"cosine": 1.0}}, "unknown loss 'cosine'"),
        ({"losses": {"similarity": 0.0}}, "greater than 0"),
        ({"held_out": 0.0}, "greater than 0"),
        ({"epochs": -1}, "greater than 0"),
        ({"epoch": 3}, "epoch"),
    ],
)
def test_mistakes_in_the_config(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Distill.from_data(config, "pass 1")
    assert message in str(caught.value)


def test_earlier_passes_stay_in_force(train: Train, trained: Trained, tmp_path: Path, texts: Artifact) -> None:
    first = Artifact(trained[0], "compress.1.distill", "k", "d", {})
    train("again", inputs={"calibration": texts, "training": texts, PREVIOUS_PASS: first})
    assert weights(tmp_path / "again").keys() == weights(trained[0]).keys()
