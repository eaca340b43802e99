"""Canonical JSON, digests, and what errors say."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.artifact import list_files, open_artifact, seal
from pipeline.core.digest import canonical_json, pretty_json, sha256_file, sha256_json, sha256_text
from pipeline.core.errors import EdgeError, ExitCode, IntegrityError, StageError, UsageError, first_line, suggest

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-4, of no bytes
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, of `abc`


def test_known_digests(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert (sha256_text(""), sha256_text("abc"), sha256_file(tmp_path / "f")) == (EMPTY, ABC, ABC)


def test_canonical_json_is_one_text_for_one_value() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'
    assert pretty_json({"b": 1, "a": 2}) == '{\n  "a": 2,\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="Out of range float values"):
        canonical_json(float("nan"))


@given(st.dictionaries(st.text(), st.integers() | st.text(), min_size=2), st.randoms())
def test_the_order_of_keys_does_not_matter(table: dict[str, object], shuffler: random.Random) -> None:
    items = list(table.items())
    shuffler.shuffle(items)
    assert sha256_json(dict(items)) == sha256_json(table)


@pytest.mark.parametrize(
    ("given_name", "said"),
    [
        ("phon", "Did you mean 'phone'?"),
        ("car", "Did you mean 'car'?"),
        ("zzz", "Allowed: car, phone, robot."),
    ],
)
def test_suggestions(given_name: str, said: str) -> None:
    assert suggest(given_name, ["phone", "car", "robot"]) == said


def test_suggestion_from_nothing() -> None:
    assert suggest("x", []) == "Allowed: nothing is registered."


def test_errors_carry_their_exit_codes() -> None:
    assert UsageError("m").exit_code == ExitCode.BAD_USAGE == 2
    assert StageError("m").exit_code == IntegrityError("m").exit_code == ExitCode.STAGE_FAILED == 3
    assert str(EdgeError("what", "do this")) == "what\ndo this"
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 70]


IDENTITY = {"stage": "stage", "config": 1}
KEY = sha256_json(IDENTITY)


def _sealed(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "b.txt").write_text("b")
    (root / "a.txt").write_text("a")
    seal(root, "stage", KEY, IDENTITY, {"fact": 2})
    return root


def test_sealing_is_reproducible_and_hides_the_place(tmp_path: Path) -> None:
    one, two = _sealed(tmp_path / "one" / KEY), _sealed(tmp_path / "two" / KEY)
    record = (one / "artifact.json").read_bytes()
    assert record == (two / "artifact.json").read_bytes()
    assert str(tmp_path).encode() not in record
    assert list(list_files(one)) == ["a.txt", "sub/b.txt"]


def test_an_artifact_is_read_back(tmp_path: Path) -> None:
    artifact = open_artifact(_sealed(tmp_path / KEY))
    assert (artifact.stage, artifact.key, artifact.metadata) == ("stage", KEY, {"fact": 2})
    with pytest.raises(IntegrityError, match=r"Artifact stage \(" + KEY[:12] + r"\) has no file 'c.txt'"):
        artifact.file("c.txt")


@pytest.mark.parametrize(("error", "line"), [(ValueError("\n a\nb"), "a"), (KeyError(), "KeyError")])
def test_first_line(error: BaseException, line: str) -> None:
    assert first_line(error) == line
