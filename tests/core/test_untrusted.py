"""The one place where bytes from elsewhere are read: what it refuses, and in which words."""

from __future__ import annotations

import json
import os
import re
import string
import sys
import tracemalloc
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import Interrupted, StageError, UsageError
from pipeline.core.untrusted import (
    DEPTH,
    parse_json,
    plain,
    read_bytes,
    read_json_object,
    read_text,
    refused,
    require_file,
    require_inside,
    shown,
    user_path,
    users_code,
    words,
)


def message(call, *arguments) -> str:
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    return caught.value.message


def test_a_pipe_that_nobody_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    assert message(require_file, tmp_path / "x", 10) == "'x' is a pipe, not a file."


def test_a_link_to_a_device_without_end(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("/dev/zero")
    assert message(read_bytes, tmp_path / "x", 10) == "'x' is a device, not a file."


def test_a_sparse_file(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(100 * 10**9)
    assert message(read_bytes, tmp_path / "x", 10**6) == "'x' has 100,000,000,000 bytes; at most 1,000,000 are read."


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "'x' is a folder, not a file."),
        (lambda path: path.symlink_to("x"), "'x' cannot be read: Too many levels of symbolic links."),
        (lambda path: path.symlink_to("nowhere"), "'x' cannot be read: No such file or directory."),
        (lambda _: None, "'x' cannot be read: No such file or directory."),
    ],
)
def test_what_is_no_file(tmp_path: Path, make, said) -> None:
    make(tmp_path / "x")
    assert message(read_bytes, tmp_path / "x", 10) == said


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png"))
    path.write_bytes(b"x")
    with pytest.raises(UsageError) as caught:
        require_file(path, 10)
    assert caught.value.message == f"{str(path)!r} is not valid UTF-8, and no report can name it."


def test_a_name_with_a_nul_byte(tmp_path: Path) -> None:
    said = message(read_bytes, tmp_path / "a\0b", 10)
    assert re.fullmatch(r"'a\\x00b' cannot be read: .*embedded null (byte|character).*\.", said)  # Python's own words


def test_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(tmp_path / "x", 100, "utf-8-sig") == "a\nb\nc\n"
    (tmp_path / "x").write_bytes(b"caf\xe9")
    assert message(read_text, tmp_path / "x", 100) == "x is not valid UTF-8 at byte 3."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "f.json is nested more than 64 levels deep."),
        ("[" * 65 + "]" * 65, "f.json is nested more than 64 levels deep."),
        ('{"a":' * 500 + "1" + "}" * 500, "f.json is nested more than 64 levels deep."),
        ("9" * 5000, "f.json is not valid JSON: Exceeds the limit (4300 digits) for integer string conversion"),
        ("", "f.json is not valid JSON: Expecting value: line 1 column 1 (char 0)."),
        ('["\\ud800"]', "f.json has a text with half a surrogate pair, which is no character."),
    ],
)
def test_json_that_is_refused(text, said) -> None:
    assert message(parse_json, text, "f.json").startswith(said)


def test_json_at_the_limit() -> None:
    assert parse_json("[" * DEPTH + "]" * DEPTH, "x")
    assert parse_json('["\\ud83d\\ude00"]', "x") == ["\U0001f600"]


def test_json_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]")
    assert message(read_json_object, tmp_path / "x.json") == "x.json is not a JSON object."


_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.one_of(st.binary(), st.text(), _TREES.map(json.dumps)))
def test_any_bytes_give_json_or_a_message(content) -> None:
    try:
        value = parse_json(content, "x")
    except UsageError as error:
        assert error.message.startswith("x ")
    else:
        json.dumps(value, ensure_ascii=False).encode()


@settings(max_examples=30)
@given(_TREES)
def test_json_is_read_as_it_was_written(tree) -> None:
    text = json.dumps(tree)
    try:
        assert parse_json(text, "x") == tree
    except UsageError as error:
        assert "surrogate" in error.message  # hypothesis draws halves of pairs


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"a": {"b": [1, 2**63]}}, "r.toml: a.b.1 is a number beyond 64 bits."),
        ({"a": float("nan")}, "r.toml: a is nan, which is not a finite number."),
        ({"a": date(2020, 1, 1)}, "r.toml: a is a date or a time; no key here takes one."),
    ],
)
def test_trees_that_no_key_takes(tree, said) -> None:
    assert message(plain, tree, "r.toml") == said


def test_a_link_out_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x").symlink_to("/etc/hostname")
    assert message(require_inside, tmp_path / "model", tmp_path / "model" / "x") == (
        "'x' in 'model' is a link to '/etc/hostname', outside the folder."
    )
    require_inside(tmp_path / "model", tmp_path / "model" / "x", (Path("/etc"),))


def test_the_home_of_nobody() -> None:
    assert message(user_path, "~nobody-of-this-name/x").startswith("'~nobody-of-this-name/x' names the home folder")


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(0), GeneratorExit(), RecursionError("deep"), KeyError(1)]
)
def test_code_of_the_user_may_raise_anything(error) -> None:
    with pytest.raises(UsageError, match=r"^it raised \w"), users_code(lambda odd: f"it raised {type(odd).__name__}"):
        raise error


def test_ctrl_c_is_not_the_users_code() -> None:
    with pytest.raises(Interrupted), users_code(lambda _: "x"):
        raise Interrupted


def test_a_message_that_cannot_be_shown() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert words(OddError()) == "(it cannot be shown)"


def test_what_libraries_raise_becomes_one_message() -> None:
    with pytest.raises(StageError, match="it: division by zero"), refused("it", kind=StageError):
        1 / 0  # noqa: B018
    with pytest.raises(UsageError, match=r"^it: of tokenizers$"), refused("it"):
        raise Exception("of tokenizers")
    with pytest.raises(MemoryError), refused("it"):
        raise MemoryError


def test_an_unknown_exception_is_a_bug() -> None:
    class OwnError(Exception):
        pass

    with pytest.raises(OwnError), refused("it"):
        raise OwnError


@given(st.text())
def test_nothing_shown_moves_the_cursor(text) -> None:
    safe = shown(text)
    assert safe == shown(safe)
    assert all(letter in "\n\t" or letter.isprintable() or ord(letter) >= 0xA0 for letter in safe)


def test_escapes_are_those_of_json() -> None:
    assert shown("a\x1b[2J\u202e\x9b\n") == "a\\u001b[2J\\u202e\\u009b\n"
    assert json.loads('"' + shown("\x9b\u2066") + '"') == "\x9b\u2066"
    assert shown(string.printable.replace("\x0b", "").replace("\x0c", "").replace("\r", "")).isascii()


def test_a_small_file_takes_little_memory_whatever_the_limit(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_bytes(b"x" * 3_000_000)
    tracemalloc.start()
    try:
        assert len(read_bytes(tmp_path / "small.txt", 10**9)) == 3_000_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_users_code_does_not_keep_the_folder_or_the_streams(tmp_path: Path) -> None:
    before = Path.cwd(), sys.stdout, sys.stderr
    with users_code(lambda _: "x"):
        os.chdir(tmp_path)
        sys.stdout = sys.stderr = None
    assert (Path.cwd(), sys.stdout, sys.stderr) == before
