"""The data sets that the figures are measured on. They are not part of the project: EDGE_DATA names their folder."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

DEFAULT = Path(__file__).parents[2] / "shared" / "data"


def folder() -> Path:
    """The folder of data sets; FileNotFoundError that says how to name one."""
    path = Path(os.environ.get("EDGE_DATA") or DEFAULT)
    if not path.is_dir():
        raise FileNotFoundError(f"no data sets at {path}: name their folder with EDGE_DATA")
    return path


def sts_dev() -> list[tuple[float, str, str]]:
    """STS-B dev: (score 0-5, sentence, sentence), 1,500 pairs."""
    lines = (folder() / "text/stsb/sts-dev.csv").read_text(encoding="utf-8").splitlines()
    columns = (line.split("\t") for line in lines)
    return [(float(row[4]), row[5], row[6]) for row in columns]


def ag_news(count: int | None = 600) -> list[str]:
    """The first AG News items, or all: title + ". " + description."""
    with (folder() / "text/ag_news/part.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[:count]
    return [f"{row[1]}. {row[2]}" for row in rows]


def ag_news_classes() -> list[tuple[int, str]]:
    """All AG News items with their classes, from 0 on."""
    with (folder() / "text/ag_news/part.csv").open(encoding="utf-8", newline="") as file:
        return [(int(row[0]) - 1, f"{row[1]}. {row[2]}") for row in csv.reader(file)]


def imdb_reviews() -> list[str]:
    """All film reviews, without their line breaks."""
    return [
        " ".join(row["text"].replace("<br />", " ").split()) for row in json_lines(folder() / "text/imdb/train.jsonl")
    ]


def gsm8k_problems() -> list[str]:
    """The questions of all arithmetic problems."""
    return [" ".join(row["question"].split()) for row in json_lines(folder() / "text/gsm8k/train.jsonl")]


def lines(file: Path) -> list[str]:
    """Split at line feeds alone: texts hold other characters that end a line."""
    return file.read_text(encoding="utf-8").rstrip("\n").split("\n")


def json_lines(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in lines(file)]
