"""Labelled texts in the tables that spreadsheets, pandas and public data sets leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from text_models import SMALL, save_text_model

from pipeline.config.job import Job
from pipeline.core.errors import UsageError
from pipeline.plan.build import Plan, make_plan

NAMES = {0: "negative", 1: "neutral", 2: "positive"}
WORDS = ["a", "the", "on", "cat", "dog", "mat", "sat", "ran", "big", "red", "was", "and", "robot"]
TEXTS = [f"{WORDS[n % 7]} {WORDS[n % 11]} {WORDS[n % 13]} {n}" for n in range(24)]
LABELS = [n * 7 % 3 for n in range(24)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, save_tokenizer: Callable[[Path], int]) -> Path:
    """`three`, whose classes have names, and `two`, whose config.json says nothing of its two."""
    root = tmp_path_factory.mktemp("classifiers")
    kind, config = "BertForSequenceClassification", "BertConfig"
    settings = {**SMALL, "num_hidden_layers": 1}
    save_text_model(root / "three", kind, save_tokenizer, config, id2label=NAMES, **settings)
    save_text_model(root / "two", kind, save_tokenizer, config, **settings)
    stated = json.loads((root / "two/config.json").read_text())
    unstated = {name: value for name, value in stated.items() if name not in ("id2label", "label2id", "num_labels")}
    (root / "two/config.json").write_text(json.dumps(unstated))
    (root / "texts.txt").write_text("\n".join(TEXTS))
    return root


def table(folder: Path, name: str, header: str, row: str, encoding: str = "utf-8") -> Path:
    """`row` with {n}, {text}, {name} and {label} filled in for every text."""
    items = enumerate(zip(TEXTS, LABELS, strict=True))
    rows = [row.format(n=n, text=text, name=NAMES[label], label=label) for n, (text, label) in items]
    path = folder / name
    path.write_text("\n".join([header, *rows, ""]).removeprefix("\n"), encoding=encoding)
    return path


def planned(models: Path, data: Path, model: str = "three", **options: Any) -> Plan:
    calibration = {"calibration_data": str(models / "texts.txt"), "calibration_samples": 8}
    return make_plan(Job(model=str(models / model), eval_data=(str(data),), **{**calibration, **options}))


@pytest.mark.parametrize(
    ("name", "header", "row", "encoding", "said"),
    [
        ("names.csv", "text,label", '"{text}, he said ""so"" \U0001f916",{name}', "utf-8-sig", []),
        ("bom.csv", "text,label", '"{text},\n two lines ""so"" \U0001f916",{label}', "utf-8-sig", []),
        ("pandas.csv", ",text,label", "{n},{text},{label}.0", "utf-8", []),
        (
            "semicolon.csv",
            "text;label",
            "{text}, {n};{label}",
            "utf-8",
            ["semicolon.csv was read with semicolons"],
        ),
        (
            "sentence.csv",
            "sentence,label",
            "{text},{name}",
            "utf-8",
            ["The texts of sentence.csv were read from"],
        ),
        (
            "plain.tsv",
            "",
            "{text}\t{name}",
            "utf-8",
            ["plain.tsv has no header; its columns were"],
        ),
        ("names.jsonl", "", '{{"text": "{text}", "label": "{name}"}}', "utf-8", []),
    ],
)
def test_tables_that_are_read(  # a table
    models: Path, tmp_path: Path, name: str, header: str, row: str, encoding: str, said: list[str]
) -> None:
    plan = planned(models, table(tmp_path, name, header, row, encoding))
    of_table = [note for note in plan.notes if name in note]
    assert [note[: len(begin)] for note, begin in zip(of_table, said, strict=True)] == said


@pytest.mark.parametrize(
    ("model", "header", "row", "encoding", "message"),
    [
        ("three", "text,label", "größer {text},{label}", "latin-1", "t.csv is not UTF-8: line 2 has the byte 0xf6."),
        (
            "three",
            "text,label",
            "{text},{name}s",
            "utf-8",
            "Sample 1 of the data set 't' has the label 'negatives'",
        ),
        (
            "two",
            "text,label",
            "{text},{label}",
            "utf-8",
            "The data set 't' has the label 2; the model has 2 cla",
        ),
        ("three", "satz,klasse", "{text},{name}", "utf-8", "t.csv has the columns satz, klasse."),
        (
            "three",
            "text,label",
            ",{label}",
            "utf-8",
            't.csv, line 2: "text" must be a text that is not em',
        ),
    ],
)
def test_tables_that_are_refused_before_anything_runs(  # a table
    models: Path, tmp_path: Path, model: str, header: str, row: str, encoding: str, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        planned(models, table(tmp_path, "t.csv", header, row, encoding), model)
    assert caught.value.message.startswith(message)


def test_columns_by_flag_and_labels_that_reach_the_evaluation(edge, models: Path, workspace: Path) -> None:
    """From the command line: the report's accuracy is that of named classes in a column with a name of its own."""
    data = table(workspace, "own.csv", "nr;satz;klasse", "{n};{text};{name}")
    flags = ["--model", str(models / "three"), "--target", "lenient", "--recipe", "fp32", "--eval-data", data.name]
    dry = edge("export", *flags, "--text-column", "satz", "--label-column", "klasse", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "Note: own.csv was read with semicolons between its columns." in " ".join(dry.stdout.split())
    done = edge("export", *flags, "--text-column", "satz", "--label-column", "klasse", "-o", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads((workspace / "out/report.json").read_text())["accuracy"]
    assert (found["dataset"], found["samples"], found["labelled"], found["primary"]) == ("own", 24, True, "accuracy")
