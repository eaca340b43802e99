from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import UsageError
from pipeline.data.datasets import load_whole
from pipeline.data.readers.tables import Columns
from pipeline.data.readers.text_files import read_texts


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "samples", "labels"),
    [
        ("a.txt", "one\n\n  two \r\nthr\u2028ee\n \n", ["one", "two", "thr\u2028ee"], None),
        ("a.txt", "\ufeff5\tnever a label\n", ["5\tnever a label"], None),
        ("A.TXT", "no newline at the end", ["no newline at the end"], None),
        ("a.jsonl", '{"text": "a\\nb"}\n\n{"text": "c", "extra": 1}\n', ["a\nb", "c"], None),
        ("a.jsonl", '{"text": "a", "label": 2}\n{"text": "b", "label": 0}\n', ["a", "b"], [2, 0]),
        ("a.csv", 'text,label\n"a, ""b""",1\n\nc,0\n', ['a, "b"', "c"], [1, 0]),
        ("a.csv", "id, text\n7,a\n", ["a"], None),
        ("a.tsv", 'text\tlabel\n"quoted\t3\n', ['"quoted'], [3]),
        # as pandas, spreadsheets and data sets of the field have it
        ("a.csv", ",text,label\n0,a,1.0\n1,b,0.0\n", ["a", "b"], [1, 0]),
        ("a.csv", '\ufefftext,label\n"a, he said ""so"" \U0001f916",good\n', ['a, he said "so" \U0001f916'], ["good"]),
        ("a.csv", 'text,label\r\n"two\r\nlines",0.25\r\n', ["two\nlines"], [0.25]),
        ("a.csv", "Text,Label\na,1\n", ["a"], [1]),
        ("a.jsonl", '{"sentence": "a", "label": "good"}\n', ["a"], ["good"]),
        ("a.jsonl", '{"text": "a", "labels": [0, 1.0]}\n{"text": "b", "labels": ["x"]}\n', ["a", "b"], [[0, 1], ["x"]]),
    ],
)
def test_texts(tmp_path: Path, name: str, content: str, samples: list[str], labels: list[int] | None) -> None:
    contents = read_texts(write(tmp_path, name, content))
    assert (contents.samples, contents.labels, contents.pairs) == (samples, labels, False)


@pytest.mark.parametrize(
    ("name", "content", "samples", "labels", "note"),
    [
        ("a.csv", "text;label\na, b;1\n", ["a, b"], [1], "a.csv was read with semicolons between its columns."),
        ("a.csv", "label\ttext\n1\ta, b\n", ["a, b"], [1], "a.csv was read with tabs between its columns."),
        ("a.csv", "id,sentence\n1,a\n", ["a"], None, "The texts of a.csv were read from its column 'sentence'."),
        (
            "a.tsv",
            "fine\t1\nbad\t0\n",
            ["fine", "bad"],
            [1, 0],
            "a.tsv has no header; its columns were read as text, label.",
        ),
        (
            "a.tsv",
            "ham\tsee you\nspam\twin\nham\tok\n",
            ["see you", "win", "ok"],
            ["ham", "spam", "ham"],
            "label, text.",
        ),
    ],
)
def test_what_was_assumed_is_said(  # a table
    tmp_path: Path, name: str, content: str, samples: list[str], labels: list[object] | None, note: str
) -> None:
    contents = read_texts(write(tmp_path, name, content))
    assert (contents.samples, contents.labels) == (samples, labels)
    (said,) = contents.notes
    assert said.endswith(note)


def test_a_header_of_unknown_names_is_not_taken_for_a_sample(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^a\.tsv has the columns comment_text, sentiment"):
        read_texts(write(tmp_path, "a.tsv", "comment_text\tsentiment\nfine\tgood\nbad\tpoor\nok\tgood\n"))


def test_columns_that_the_user_names(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text;satz;klasse;label\nx;a;gut;1\ny;b;schlecht;0\n")
    named = Columns(text="satz", label="klasse")
    contents = read_texts(path, named)
    assert (contents.samples, contents.labels) == (["a", "b"], ["gut", "schlecht"])
    other = write(tmp_path, "b.csv", "text,label\na,1\n")
    with pytest.raises(UsageError) as caught:
        read_texts(other, named)
    assert caught.value.message == "b.csv has no column 'satz'; it has text, label."
    assert read_texts(other, named.model_copy(update={"optional": True})).labels == [1]


@pytest.mark.parametrize(
    ("content", "message", "remedy"),
    [
        ("text\nfür\n".encode("latin-1"), "line 2 has the byte 0xfc. It looks like Latin-1 or Windows", "WINDOWS-1252"),
        ("text\na\n".encode("utf-16"), "line 1 has the byte 0xff. It looks like UTF-16.", "UTF-16"),
    ],
)
def test_another_encoding_is_named_with_how_to_convert_it(
    tmp_path: Path, content: bytes, message: str, remedy: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_texts(write(tmp_path, "a.csv", content))
    assert caught.value.message.startswith(f"a.csv is not UTF-8: {message}")
    assert caught.value.remedy == f"Convert it: iconv -f {remedy} -t UTF-8 a.csv > a.utf8.csv"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "4.5\ta cat\tthe cat\n0\ta cat\ta car\n"),
        ("a.tsv", "sentence1\tsentence2\tscore\na cat\tthe cat\t4.5\na cat\ta car\t0\n"),
        ("a.csv", "score,sentence1,sentence2\n4.5,a cat,the cat\n0,a cat,a car\n"),
        (
            "a.jsonl",
            '{"sentence1": "a cat", "sentence2": "the cat", "score": 4.5}\n'
            '{"sentence1": "a cat", "sentence2": "a car", "score": 0}\n',
        ),
    ],
)
def test_pairs(tmp_path: Path, name: str, content: str) -> None:
    contents = read_texts(write(tmp_path, name, content))
    assert contents.samples == [("a cat", "the cat"), ("a cat", "a car")]
    assert (contents.labels, contents.pairs) == ([4.5, 0.0], True)


def test_pairs_with_classes(tmp_path: Path) -> None:
    contents = read_texts(write(tmp_path, "a.tsv", "sentence1\tsentence2\tlabel\na\tb\tentailment\n"))
    assert (contents.samples, contents.labels, contents.pairs) == ([("a", "b")], ["entailment"], True)


NO_LABEL = '"label" must be a class index (0, 1, ...), the name of a class, a number, or a list of these, not '
NO_TEXT = '"text" must be a text that is not empty, not '


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\n \n", "a.txt has no samples."),
        ("a.jsonl", "", "a.jsonl has no samples."),
        ("a.csv", "text,label\n", "a.csv has no samples."),
        ("a.tsv", "", "a.tsv has no samples."),
        (
            "a.txt",
            b"good\nbad \xff\n",
            "a.txt is not UTF-8: line 2 has the byte 0xff. It looks like Latin-1 or Windows-1252.",
        ),
        ("a.jsonl", "[1]\n", "a.jsonl, line 1 is not a JSON object."),
        ("a.jsonl", '{"title": "x", "body": "y"}\n', "a.jsonl has the columns title, body."),
        ("a.jsonl", "{}\n", "a.jsonl has the columns (none)."),
        ("a.csv", "sentence1,score\na,1\n", "a.csv has the columns sentence1, score."),
        ("a.csv", "text,label\na,1\nb\n", "a.csv, line 3 has 1 columns; the first line has 2."),
        ("a.csv", 'text\n"a\n', "a.csv, line 2 cannot be read: unexpected end of data."),
        (
            "a.jsonl",
            '{"text": "a", "label": 0}\n\n{"text": "b"}\n',
            'a.jsonl, line 3 has no "label"; the samples before it have one.',
        ),
        ("a.jsonl", '{"text": 3}\n', f"a.jsonl, line 1: {NO_TEXT}3."),
        ("a.csv", "text,label\n ,1\n", f"a.csv, line 2: {NO_TEXT}' '."),
        (
            "a.csv",
            "text,label\na,1\nb, \n",
            f"a.csv, line 3: {NO_LABEL}' '.",
        ),
        (
            "a.jsonl",
            '{"text": "a", "label": null}\n',
            f"a.jsonl, line 1: {NO_LABEL}None.",
        ),
        ("a.csv", "text,label,labels\na,1,1\n", 'a.csv has the columns "label" and "labels".'),
        ("a.csv", "text,label,text\na,1,b\n", "a.csv has two columns 'text'."),
        (
            "a.csv",
            'text,label\n"two\nlines",1\n,1\n',
            f"a.csv, line 4: {NO_TEXT}''.",
        ),
        ("a.csv", "satz;klasse\na;1\n", "a.csv has the columns satz;klasse."),
        ("a.csv", "sentence,review\na,b\n", "a.csv has the columns sentence, review."),
        ("a.tsv", "great film\t1\tx\n", "a.tsv has no samples."),
        (
            "a.tsv",
            "1\ta\tb\nnan\tc\td\n",
            "a.tsv, line 2: \"score\" must be a number, not 'nan'.",
        ),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_texts(write(tmp_path, name, content))
    assert caught.value.message == message


def test_a_malformed_json_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a"}\n\n{"text": \n')
    with pytest.raises(UsageError, match=r"^a\.jsonl, line 3 is not valid JSON: Expecting value"):
        read_texts(path)


def test_missing_columns_say_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_texts(write(tmp_path, "a.csv", "cells\nx\n"))
    assert caught.value.remedy == (
        'Give "text" (and "label" if there is one), "tokens" (and "labels"), "sentence1", "sentence2" and "score", or '
        '"question", "context" and "answers"; or name the columns with --text-column and --label-column.'
    )


def test_the_digest_depends_on_how_the_bytes_are_read(tmp_path: Path) -> None:
    digests = {read_texts(write(tmp_path, name, "text\nb\n")).digest for name in ("a.txt", "b.TXT", "c.csv")}
    assert len(digests) == 2


line = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1).filter(lambda text: text.strip())


@given(texts=st.lists(line, min_size=1))
def test_every_line_is_a_sample(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(tmp_path_factory.mktemp("lines"), "a.txt", "first\n" + "\n".join(texts))
    assert read_texts(path).samples == ["first", *(text.strip() for text in texts)]


def test_a_query_beside_its_passage_is_no_single_text(tmp_path: Path) -> None:
    path = write(tmp_path, "pairs.jsonl", '{"query": "a", "passage": "b", "score": 1}\n')
    with pytest.raises(UsageError) as caught:
        read_texts(path)
    assert caught.value.message == (
        "pairs.jsonl has the columns 'query' and 'passage': pairs of texts, or one of them alone."
    )
    assert read_texts(path, Columns(text="query")).samples == ["a"]


@pytest.mark.parametrize("form", ["{rows}", '{{"version": 1, "data": {rows}}}'])
def test_a_json_list_is_read_as_its_objects(tmp_path: Path, form: str) -> None:
    rows = '[{"text": "a", "label": true}, {"text": "b", "label": false}]'
    contents = load_whole(str(write(tmp_path, "a.json", form.format(rows=rows))))
    assert (list(contents.samples), contents.labels) == (["a", "b"], [1, 0])
    with pytest.raises(UsageError, match=r"^b\.json: entry 2 is not an object\."):
        load_whole(str(write(tmp_path, "b.json", '[{"text": "a"}, "b"]')))


def test_tabs_in_every_line_of_a_txt_are_said(tmp_path: Path) -> None:
    contents = read_texts(write(tmp_path, "a.txt", "fine\t1\n\nbad\t0\n"))
    assert contents.notes == (
        "Every line of a.txt has a tab; a .txt is read as texts without labels. Call it .tsv to have columns.",
    )
    assert read_texts(write(tmp_path, "b.txt", "fine\t1\nbad\n")).notes == ()
