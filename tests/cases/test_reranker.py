"""A cross-encoder with one logit, pairs with scores: judged by how it ranks, never by a top class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from fixtures import LENIENT_TARGET
from scipy.stats import spearmanr

from pipeline.api import export
from pipeline.core.errors import UsageError
from pipeline.core.report_types import DatasetAccuracy

WORDS = [
    "phone",
    "car",
    "robot",
    "road",
    "board",
    "hand",
    "room",
    "door",
    "light",
    "water",
    "fire",
    "work",
    "time",
    "year",
    "day",
    "man",
    "woman",
    "child",
    "world",
    "life",
]


def model_with(folder: Path, tokenizer: Path, **heads: object) -> Path:
    """A random BertForSequenceClassification, its tables enlarged so that its answers differ."""
    import torch  # noqa: PLC0415
    from transformers import BertConfig, BertForSequenceClassification  # noqa: PLC0415

    torch.manual_seed(0)
    config = BertConfig.from_pretrained(tokenizer)
    config.update({"architectures": None, "num_hidden_layers": 1, **heads})
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    return folder


NEIGHBOURS = """
[budgets.min_top10_overlap]
limit = 0.5
required = true
evidence = ["host"]
source = "assumption: a test"
"""


def pairs(path: Path, count: int = 60, scored: bool = True) -> Path:
    """Pairs of word strings of several lengths, with scores that float does not follow."""
    draw = np.random.default_rng(1)
    sides = [[" ".join(draw.choice(WORDS, draw.integers(3, 12))) for _ in range(2)] for _ in range(count)]
    rows = [{"sentence1": a, "sentence2": b, "score": draw.random()} for a, b in sides]
    texts = [{"text": f"{a} {b}"} for a, b in sides]
    path.write_text("\n".join(json.dumps(row) for row in (rows if scored else texts)))
    return path


def exported(
    tmp_path: Path, model: Path, data: Path, **options: object
) -> tuple[DatasetAccuracy, dict[str, object], Path]:
    target = tmp_path / "robot.toml"
    target.write_text(LENIENT_TARGET + NEIGHBOURS)
    result = export(
        str(model),
        str(target),
        recipe="w8a8-dynamic",
        calibration_data=str(data),
        calibration_samples=16,
        eval_data=(str(data),),
        output=tmp_path / "out",
        store=tmp_path / "store",
        sequence_length=32,
        **options,
    )
    budgets = {budget.metric: budget for budget in result.report.budgets}
    return result.report.accuracy[0], budgets, result.folder / "bundle"


def scores_of(bundle: Path, model: Path, data: Path) -> np.ndarray:
    """What a bundle says of each pair alone, computed without the pipeline."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model)
    session = ort.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    found = []
    for line in data.read_text().splitlines():
        row = json.loads(line)
        encoded = tokenizer(row["sentence1"], row["sentence2"], truncation=True, max_length=32, return_tensors="np")
        found.append(session.run(["logits"], {name: encoded[name].astype(np.int64) for name in names})[0].item())
    return np.array(found)


def reference_of(model: Path, data: Path) -> np.ndarray:
    import torch  # noqa: PLC0415
    from transformers import AutoTokenizer, BertForSequenceClassification  # noqa: PLC0415

    tokenizer, network = (
        AutoTokenizer.from_pretrained(model),
        BertForSequenceClassification.from_pretrained(model).eval(),
    )
    found = []
    for line in data.read_text().splitlines():
        row = json.loads(line)
        with torch.no_grad():
            given = tokenizer(row["sentence1"], row["sentence2"], truncation=True, max_length=32, return_tensors="pt")
            found.append(network(**given).logits.item())
    return np.array(found)


def test_ranks_and_errors_and_the_given_scores_decide(tmp_path: Path, tiny_bert: Path) -> None:
    model = model_with(tmp_path / "model", tiny_bert, num_labels=1)
    data = pairs(tmp_path / "pairs.jsonl")
    accuracy, budgets, bundle = exported(tmp_path, model, data)
    expected, found = reference_of(model, data), scores_of(bundle, model, data)
    wanted = [json.loads(line)["score"] for line in data.read_text().splitlines()]
    error = np.sqrt(np.mean((expected - found) ** 2)) / expected.std()
    assert accuracy.labelled
    assert accuracy.scores["rank_correlation"] == pytest.approx(spearmanr(expected, found)[0], abs=1e-3)
    assert accuracy.scores["error_in_std"] == pytest.approx(error, rel=1e-2)
    assert accuracy.scores["spearman"] == pytest.approx(100 * spearmanr(found, wanted)[0], abs=0.1)
    assert accuracy.scores["spearman_float"] == pytest.approx(100 * spearmanr(expected, wanted)[0], abs=0.1)
    assert "agreement" not in accuracy.scores
    assert accuracy.drop >= max(100 * (1 - accuracy.scores["rank_correlation"]), 100 * min(error, 1) ** 2) - 0.01
    assert "error_in_std_batched" in accuracy.scores
    assert budgets["max_accuracy_drop"].figure.value == accuracy.drop > 0
    assert "judged by numbers" in budgets["min_top10_overlap"].reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heads", "score"),
    [
        ({"num_labels": 3, "problem_type": "regression"}, "rank_correlation"),
        ({"num_labels": 4, "problem_type": "multi_label_classification"}, "agreement"),
    ],
)
def test_other_heads(tmp_path: Path, tiny_bert: Path, heads: dict[str, object], score: str) -> None:
    model = model_with(tmp_path / "model", tiny_bert, **heads)
    accuracy, budgets, _ = exported(tmp_path, model, pairs(tmp_path / "texts.jsonl", scored=False))
    assert not accuracy.labelled
    assert accuracy.scores[score] <= 1
    assert "kl_divergence" not in accuracy.scores
    assert budgets["max_accuracy_drop"].figure.value == accuracy.drop


def test_a_reranker_whose_scores_are_all_equal_has_no_order(tmp_path: Path, tiny_bert: Path) -> None:
    model = model_with(tmp_path / "model", tiny_bert, num_labels=1)
    data = pairs(tmp_path / "pairs.jsonl")
    rows = [json.loads(line) | {"score": 1.0} for line in data.read_text().splitlines()]
    data.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(UsageError, match="has the same score everywhere: there is no order to compare with"):
        exported(tmp_path, model, data)
