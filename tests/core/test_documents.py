"""JSON that anybody may have written gives a value or one kind of error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.documents import DocumentError, parse_json, read_json


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"\xff", "is not valid JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[NaN]", "is not valid JSON: it has the number NaN"),
        (b"[-Infinity]", "is not valid JSON: it has the number -Infinity"),
        (b'{"a": 1, "a": 2}', "is not valid JSON: a key is given twice"),
        (b"[" * 200_000, "is not valid JSON: it is nested too deep"),
    ],
)
def test_what_is_no_json(content: bytes, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_json(content)
    assert str(caught.value) == message


def test_a_number_too_long_to_read() -> None:
    with pytest.raises(DocumentError, match="is not valid JSON"):
        parse_json(b"1" * 10_000)


@given(st.binary(max_size=60))
def test_any_bytes(content: bytes) -> None:
    try:
        parse_json(content)
    except DocumentError as error:
        assert str(error).startswith("is not valid JSON: ")


def test_files(tmp_path: Path) -> None:
    def wrong(path: Path) -> str:
        with pytest.raises(DocumentError) as caught:
            read_json(path, max_bytes=10)
        return str(caught.value)

    (tmp_path / "good").write_text("[1]")
    assert read_json(tmp_path / "good") == [1]
    assert wrong(tmp_path / "none") == "is missing"
    assert wrong(tmp_path) == "is a folder"
    assert wrong(Path("/dev/zero")) == "is a device"
    os.mkfifo(tmp_path / "fifo")
    assert wrong(tmp_path / "fifo") == "is a FIFO"
    (tmp_path / "link").symlink_to("/dev/zero")
    assert wrong(tmp_path / "link") == "is a link"
    (tmp_path / "long").write_text(" " * 11)
    assert wrong(tmp_path / "long") == "is longer than 1e-05 MB"
    assert wrong(tmp_path / "a\0b").startswith("cannot be read: ")  # in words of Python
