"""Training text for the sentence encoder: pieces of a few sentences from the texts given, AG News left out."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.data import folder

_WORDS = (3, 60)  # of a piece
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def training_text(place: Path) -> Path:
    """`place`/training.txt, a piece a line, written if it is not there: films, sentiment phrases, paraphrases, similar
    sentences of the training part, problems with their answers, plays and encyclopedia articles."""
    file = place / "training.txt"
    if not file.is_file():
        place.mkdir(parents=True, exist_ok=True)
        pieces = dict.fromkeys(piece for piece in _pieces(folder() / "text") if _fits(piece))
        file.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return file


def _fits(piece: str) -> bool:
    return _WORDS[0] <= len(piece.split()) <= 2 * _WORDS[1]


def _pieces(text: Path) -> Iterator[str]:
    for row in _json_lines(text / "imdb/train.jsonl"):
        yield from _chunks(row["text"].replace("<br />", " "))
    for row in _json_lines(text / "gsm8k/train.jsonl"):
        yield from (_clean(row["question"]), _clean(re.sub(r"<<.*?>>|####.*", "", row["answer"])))
    yield from (_clean(line.rpartition("\t")[0]) for line in _lines(text / "sst2/train.tsv"))
    for row in _table(text / "mrpc/msr_paraphrase_train.txt"):
        yield from (_clean(side) for side in row[3:5])
    for row in _table(text / "stsb/sts-train.csv"):
        yield from (_clean(side) for side in row[5:7])
    for name in ("wikitext2/train.txt", "wikitext2/valid.txt", "tinyshakespeare/input.txt"):
        for paragraph in (text / name).read_text(encoding="utf-8").split("\n\n"):
            yield from _chunks(paragraph)
    for line in _lines(text / "wikitext2/train.txt"):
        yield from _chunks(line)


def _chunks(text: str) -> Iterator[str]:
    """Runs of sentences; their lengths cycle through one, two and three, so that short and long pieces occur."""
    sentences, place, size = _SENTENCE.split(_clean(text)), 0, 1
    while place < len(sentences):
        yield " ".join(sentences[place : place + size])
        place, size = place + size, size % 3 + 1


def _clean(text: str) -> str:
    return " ".join(text.replace("<unk>", " ").split())


def _lines(file: Path) -> Iterable[str]:
    return file.read_text(encoding="utf-8").rstrip("\n").split("\n")


def _json_lines(file: Path) -> Iterator[dict[str, str]]:
    yield from (json.loads(line) for line in _lines(file))


def _table(file: Path) -> Iterator[list[str]]:
    with file.open(encoding="utf-8-sig", newline="") as handle:
        yield from csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
