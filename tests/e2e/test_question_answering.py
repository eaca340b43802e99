"""Questions about contexts, from the command line: a small BERT that is trained here, judged by its answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

ASKED = {"who": ("man", "woman", "child"), "where": ("road", "room", "door"), "when": ("day", "year", "time")}
KINDS = ("good", "bad", "old", "new", "big", "small")
FILLERS = ("can", "will", "is", "would")


def questions(count: int, seed: int) -> list[dict[str, Any]]:
    """A context names a person, a place and a time in any order, each with an adjective; the question asks for one."""
    dice, found = Random(seed), []  # noqa: S311  # a made-up language, no secrets
    for _ in range(count):
        answers = {asked: f"{dice.choice(KINDS)} {dice.choice(nouns)}" for asked, nouns in ASKED.items()}
        parts = [f"the {text} {dice.choice(FILLERS)}" for text in answers.values()]
        dice.shuffle(parts)
        asked = dice.choice(list(ASKED))
        context = " ".join(parts)
        answer = {"text": [answers[asked]], "answer_start": [context.index(answers[asked])]}
        found.append({"question": f"{asked} is it ?", "context": context, "answers": answer})
    return found


@pytest.fixture(scope="module")
def model(save_tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BertForQuestionAnswering that was trained for some seconds."""
    import torch  # noqa: PLC0415
    from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("qa") / "small-qa"
    folder.mkdir()
    size = save_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1}
    network = BertForQuestionAnswering(BertConfig(vocab_size=size, max_position_embeddings=64, **sizes, **still))
    rows = questions(1200, 1)
    pairs = [[row["question"] for row in rows], [row["context"] for row in rows]]
    encoded = tokenizer(*pairs, padding=True, return_tensors="pt")
    begins = [row["answers"]["answer_start"][0] for row in rows]
    ends = [begin + len(row["answers"]["text"][0]) - 1 for begin, row in zip(begins, rows, strict=True)]
    first, last = (
        torch.tensor([encoded.char_to_token(place, at, sequence_index=1) for place, at in enumerate(places)])
        for places in (begins, ends)
    )
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for step in range(160):
        chosen = torch.arange(64) + 64 * step
        part = {name: value[chosen % 1200] for name, value in encoded.items()}
        loss = network(**part, start_positions=first[chosen % 1200], end_positions=last[chosen % 1200]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.save_pretrained(folder)
    return folder


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["question", "context", "answer"])
            writer.writerows([row["question"], row["context"], row["answers"]["text"][0]] for row in rows)
    else:
        answered = [
            {**row, "id": str(place), "answers": [{"text": text, "answer_start": 0} for text in row["answers"]["text"]]}
            for place, row in enumerate(rows)
        ]
        paragraphs = [{"context": row["context"], "qas": [row]} for row in answered]
        path.write_text(json.dumps({"version": "1.1", "data": [{"title": "a", "paragraphs": paragraphs}]}))


def test_answers_are_scored_as_texts(edge, workspace, model: Path) -> None:
    write(workspace, "calibration.jsonl", questions(64, 2))
    rows = questions(96, 3)
    for name in ("data.json", "data.csv", "data.jsonl"):
        write(workspace, name, rows)
    files = ["--calibration-data", "calibration.jsonl", "--eval-data", "data.json", "--eval-data", "data.csv"]
    flags = ["--model", str(model), "--target", "lenient", "--recipe", "w8a8", "--output", "out", *files]
    done = edge("export", *flags, "--eval-data", "data.jsonl", "--budget", "max_accuracy_drop=5")
    assert done.returncode == 0, done.stdout + done.stderr
    of_json, of_csv, of_jsonl = json.loads((workspace / "out/report.json").read_text())["accuracy"]
    assert of_json["primary"] == "span_f1"
    assert of_json["scores"]["span_f1_float"] > 80
    assert of_json["scores"] == of_csv["scores"] == of_jsonl["scores"]


def test_contexts_that_are_cut_are_said(edge, workspace, model: Path) -> None:
    long = [{**row, "context": " ".join([row["context"]] * 4)} for row in questions(24, 4)]
    write(workspace, "long.jsonl", long)
    data = ["--calibration-data", "long.jsonl", "--eval-data", "long.jsonl", "--output", "out"]
    done = edge("export", "--model", str(model), "--target", "lenient", "--recipe", "w8a8-dynamic", *data)
    assert done.returncode == 0, done.stdout + done.stderr
    notes = json.loads((workspace / "out/report.json").read_text())["notes"]
    assert (
        "24 of the 24 contexts of 'long' are cut to 32 tokens with their question: answers that stand behind are not "
        "found." in notes
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "who?", "context": " ", "answers": "a"}, '"context" must be a text that is not empty'),
        ({"question": "who?", "context": "a b", "answers": 3}, '"answers" must be a text, a list of texts'),
    ],
)
def test_what_is_refused(edge, workspace, model: Path, row: dict[str, Any], message: str) -> None:
    write(workspace, "data.jsonl", [row] * 12)
    flags = ["--model", str(model), "--target", "lenient", "--calibration-data", "calibration.txt"]
    done = edge("export", *flags, "--eval-data", "data.jsonl", "--dry-run")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_a_classifier_takes_no_questions(edge, workspace, tiny, model: Path) -> None:
    write(workspace, "data.jsonl", questions(12, 5))
    done = edge("export", *tiny, "--eval-data", "data.jsonl", "--dry-run")
    assert done.returncode == 2
    assert "'data' holds questions samples; feature-extraction takes text." in done.stderr
    assert "--text-column" in done.stderr
