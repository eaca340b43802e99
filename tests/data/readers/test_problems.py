"""Problems with answers, as files of evaluations have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.errors import UsageError
from pipeline.data.readers.problems import Problem
from pipeline.data.readers.text_files import read_texts


def _jsonl(folder: Path, *rows: object) -> Path:
    path = folder / "problems.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_questions_of_gsm8k(tmp_path: Path) -> None:
    found = read_texts(_jsonl(tmp_path, {"question": " How many? ", "answer": "2+2=<<2+2=4>>4\n#### 4"}))
    assert found.kind == "problems"
    (problem,) = found.samples
    assert problem == Problem("How many?", ("2+2=<<2+2=4>>4\n#### 4",), asked=True)
    assert problem.prompt == "Question: How many?\nAnswer:"
    assert problem.whole == "Question: How many?\nAnswer: 2+2=<<2+2=4>>4\n#### 4"


def test_a_prompt_stays_as_it_is_and_answers_may_be_numbers(tmp_path: Path) -> None:
    found = read_texts(_jsonl(tmp_path, {"prompt": "1+1=2\n\n2+2= ", "answers": [4, "four", 4.0]}))
    (problem,) = found.samples
    assert problem == Problem("1+1=2\n\n2+2= ", ("4", "four", "4"), asked=False)
    assert problem.whole == "1+1=2\n\n2+2= 4"


def test_a_table(tmp_path: Path) -> None:
    (tmp_path / "problems.csv").write_text("Question,Answer\nHow many?,4\n", encoding="utf-8")
    assert read_texts(tmp_path / "problems.csv").samples == [Problem("How many?", ("4",), asked=True)]


def test_questions_about_a_context_are_none(tmp_path: Path) -> None:
    row = {"question": "Where?", "context": "It lies in Rome.", "answers": ["Rome"]}
    assert read_texts(_jsonl(tmp_path, row)).kind == "questions"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "", "answer": "4"}, "line 2: \"question\" must be a text that is not empty, not ''."),
        ({"answer": "4"}, "line 2: \"question\" must be a text that is not empty, not 'None'."),
        ({"question": "How?", "answer": []}, 'line 2: "answer" must be a text, a number or a list'),
        ({"question": "How?", "answer": ["4", None]}, 'line 2: "answer" must be a text, a number or a list'),
        ({"question": "How?", "answer": True}, 'line 2: "answer" must be a text, a number or a list'),
    ],
)
def test_what_is_missing(row: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_texts(_jsonl(tmp_path, {"question": "How many?", "answer": "4"}, row))
    assert message in caught.value.message
