"""Training texts for the sentence encoder: pieces of a few sentences from the texts given, AG News left out."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.data import folder, json_lines, lines

_WORDS = (3, 60)  # of a piece
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def training_text(place: Path) -> Path:
    """`place`/training.txt, a piece a line, written if it is not there: films, sentiment phrases, paraphrases, similar
    sentences of the training part, problems with their answers, plays and encyclopedia articles."""
    return _written(place / "training.txt", _general)


def news_like_text(place: Path) -> Path:
    """`place`/news_like.txt: for a model that news will be given to. Three pieces of four are made of news sentences
    (paraphrases, and the news among the similar sentences): themselves, two in a row, and a few words of one before
    another, as a headline stands before its text; the others are of all kinds."""
    return _written(place / "news_like.txt", _news_like)


def _written(file: Path, pieces: Callable[[Path], Iterable[str]]) -> Path:
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        fitting = dict.fromkeys(piece for piece in pieces(folder() / "text") if _fits(piece))
        file.write_text("\n".join(fitting) + "\n", encoding="utf-8")
    return file


def _fits(piece: str) -> bool:
    return _WORDS[0] <= len(piece.split()) <= 2 * _WORDS[1]


def _general(text: Path) -> Iterator[str]:
    yield from _reviews(text)
    for question, answer in _problems(text):
        yield from (question, answer)
    yield from _phrases(text)
    yield from _paraphrases(text)
    yield from (sentence for _, sentence in _similar(text))
    for name in ("wikitext2/train.txt", "wikitext2/valid.txt", "tinyshakespeare/input.txt"):
        for paragraph in (text / name).read_text(encoding="utf-8").split("\n\n"):
            yield from _chunks(paragraph)
    for line in lines(text / "wikitext2/train.txt"):
        yield from _chunks(line)


def _news_like(text: Path) -> Iterator[str]:
    generator = random.Random(0)  # noqa: S311  # no secret
    news = [*_paraphrases(text), *(sentence for genre, sentence in _similar(text) if genre == "main-news")]
    articles = [piece for name in ("train", "valid") for line in lines(text / f"wikitext2/{name}.txt")
                for piece in _chunks(line)]  # fmt: skip
    others = [*_reviews(text), *(question for question, _ in _problems(text)), *_phrases(text)]
    plays = [piece for paragraph in (text / "tinyshakespeare/input.txt").read_text(encoding="utf-8").split("\n\n")
             for piece in _chunks(paragraph)]  # fmt: skip
    pieces = [
        *news,
        *(sentence for _, sentence in _similar(text)),
        *(pair for _ in range(4) for pair in _pairs(news, generator)),
        *(_headed(sentence, news, generator) for _ in range(4) for sentence in news),
        *articles,
        *(pair for _ in range(2) for pair in _pairs(articles, generator)),
        *generator.sample(others, len(others) * 2 // 3),
        *generator.sample(plays, len(plays) // 2),
    ]
    generator.shuffle(pieces)
    yield from pieces


def _pairs(sentences: Sequence[str], generator: random.Random) -> Iterator[str]:
    """All sentences, two at a time, in a random order."""
    order = generator.sample(sentences, len(sentences))
    yield from (f"{first.rstrip('.')}. {second}" for first, second in zip(order[::2], order[1::2], strict=False))


def _headed(sentence: str, others: Sequence[str], generator: random.Random) -> str:
    """Four to nine words of the sentence, then another one."""
    words, count = sentence.split(), generator.randint(4, 9)
    start = generator.randint(0, max(0, len(words) - count))
    return f"{' '.join(words[start : start + count])}. {generator.choice(others)}"


def _reviews(text: Path) -> Iterator[str]:
    for row in json_lines(text / "imdb/train.jsonl"):
        yield from _chunks(row["text"].replace("<br />", " "))


def _problems(text: Path) -> Iterator[tuple[str, str]]:
    for row in json_lines(text / "gsm8k/train.jsonl"):
        yield _clean(row["question"]), _clean(re.sub(r"<<.*?>>|####.*", "", row["answer"]))


def _phrases(text: Path) -> Iterator[str]:
    yield from (_clean(line.rpartition("\t")[0]) for line in lines(text / "sst2/train.tsv"))


def _paraphrases(text: Path) -> Iterator[str]:
    for row in _table(text / "mrpc/msr_paraphrase_train.txt"):
        yield from (_clean(side) for side in row[3:5])


def _similar(text: Path) -> Iterator[tuple[str, str]]:
    """(genre, sentence) of the training part."""
    for row in _table(text / "stsb/sts-train.csv"):
        yield from ((row[0], _clean(side)) for side in row[5:7])


def _chunks(text: str) -> Iterator[str]:
    """Runs of sentences; their lengths cycle through one, two and three, so that short and long pieces occur."""
    sentences, place, size = _SENTENCE.split(_clean(text)), 0, 1
    while place < len(sentences):
        yield " ".join(sentences[place : place + size])
        place, size = place + size, size % 3 + 1


def _clean(text: str) -> str:
    return " ".join(text.replace("<unk>", " ").split())


def _table(file: Path) -> Iterator[list[str]]:
    with file.open(encoding="utf-8-sig", newline="") as handle:
        yield from csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
