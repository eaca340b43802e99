"""Labels that stand beside images and recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import UsageError
from pipeline.data.datasets import load_whole
from pipeline.data.labels import number_labels
from pipeline.data.readers.tables import Columns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("set/b.png", "set/a.png", "set/more/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / name)
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("name", "table", "labels"),
    [
        ("labels.csv", "file_name,text\nb.png,two\na.png,one\n", ["one", "two"]),
        ("metadata.csv", 'file_name,transcription,other\na.png,"one, 1",x\nb.png,two,y\n', ["one, 1", "two"]),
        ("labels.txt", "a.png\t001\nb.png\t12\nmore/c.png\t7\n", ["001", "12", "7"]),  # as PaddleOCR has it
        ("labels.csv", "a.png,one\nb.png,two\n", ["one", "two"]),
        ("transcripts.tsv", 'path\tsentence\na.png\t"so"\nb.png\t\n', ['"so"', ""]),
    ],
)
def test_a_table_beside_the_files(folder: Path, name: str, table: str, labels: list[str]) -> None:
    (folder / name).write_text(table)
    found = load_whole(str(folder))
    assert (found.kind, found.labels, len(found.samples)) == ("image", labels, len(labels))


def test_a_text_beside_every_file(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text(f"{name} text\n")
    found = load_whole(str(folder))
    assert found.labels == ["a text", "b text"]
    (folder / "b.txt").write_text("other\n")
    assert load_whole(str(folder)).digest != found.digest
    (folder / "b.txt").unlink()
    with pytest.raises(UsageError, match=r"'b\.png' has no text b\.txt beside it; others have\."):
        load_whole(str(folder))


def test_another_column_and_numbers(folder: Path) -> None:
    """Numbers are texts until a kind of output takes them for classes."""
    (folder / "labels.csv").write_text("file,score,word\na.png,1.0,x\nb.png,0,y\n")
    found = load_whole(str(folder), Columns(label="score"))
    assert found.labels == ["1.0", "0"]
    assert number_labels(found, {"no": 0, "yes": 1}).labels == [1, 0]


def test_a_table_that_speaks_of_something_else_is_left_alone(folder: Path) -> None:
    (folder / "more/c.png").unlink()
    (folder / "metadata.csv").write_text("camera,date\nx,y\n")
    assert load_whole(str(folder)).labels is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,text\na.png,x\n", "'b.png' has no row in labels.csv."),
        ("file,text\na.png,x\nb.png,y\nz.png,z\n", "labels.csv, line 4 names 'z.png'; there is no such file of "),
        ("file,text\na.png,x\nb.png,y\na.png,z\n", "labels.csv, line 4 names 'a.png' again."),
        ("file,text\n../set/a.png,x\n", "labels.csv, line 2 names the file '../set/a.png', which is outside the fo"),
        ("file,text\nlabels.csv,x\n", "labels.csv, line 2 names 'labels.csv'; there is no such file of .bmp"),
        ("what,ever\na.png,x\n", "labels.csv has the columns what, ever."),
        ("file,text,label\na.png,x,1\n", "labels.csv has the columns file, text, label."),
    ],
)
def test_tables_that_do_not_fit(folder: Path, table: str, message: str) -> None:
    (folder / "labels.csv").write_text(table)
    with pytest.raises(UsageError) as caught:
        load_whole(str(folder))
    assert caught.value.message.startswith(message)


def test_a_folder_of_archives_has_a_sample_each(tmp_path: Path) -> None:
    for name, length in (("b", 3), ("a", 5)):
        np.savez(tmp_path / f"{name}.npz", x=np.full((length, 2), length, np.float32), y=np.arange(length))
    found = load_whole(str(tmp_path))
    assert [sample["x"].shape for sample in found.samples] == [(5, 2), (3, 2)]
    assert found.labels == [[0, 1, 2, 3, 4], [0, 1, 2]]
    np.savez(tmp_path / "c.npz", x=np.zeros((1, 2)))
    with pytest.raises(UsageError, match=r"c\.npz has no 'y'; other files of .* have\."):
        load_whole(str(tmp_path))
