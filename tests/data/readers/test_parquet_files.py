"""Tables in .parquet files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import UsageError
from pipeline.data.readers.text_files import read_texts


def test_without_its_package_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setattr("pipeline.data.readers.parquet_files.find_spec", lambda _: None)
    with pytest.raises(UsageError) as caught:
        read_texts(path)
    assert caught.value.message == "data.parquet needs the Python package pyarrow to be read, which is not installed."


def test_rows_become_labelled_texts(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": ["good", "bad"], "label": [1, 0]}), tmp_path / "data.parquet")
    found = read_texts(tmp_path / "data.parquet")
    assert (list(found.samples), found.labels) == (["good", "bad"], [1, 0])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and more that is none")
    with pytest.raises(UsageError, match=r"bad\.parquet is not a Parquet file that can be read"):
        read_texts(tmp_path / "bad.parquet")


def test_special_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with (tmp_path / "data.parquet").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(UsageError, match=r"has 1,000,000,000,000 bytes; at most 1,000,000,000 are read"):
        read_texts(tmp_path / "data.parquet")
