from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.digest import sha256_file
from pipeline.core.errors import UsageError
from pipeline.data.datasets import ALLOWED, available_sets, load_calibration, load_evaluation, load_training

SHIPPED = sorted(available_sets())


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    path = tmp_path / "ten.txt"
    path.write_text("".join(f"text {i}\n" for i in range(10)))
    return path


def write_set(folder: Path, **changes: object) -> Path:
    """A text set with a manifest: three calibration texts, two scored pairs."""
    folder.mkdir(parents=True)
    (folder / "calibration.txt").write_text("a\nb\nc\n")
    (folder / "pairs.tsv").write_text("5.0\ta cat\tthe cat\n0.5\ta cat\ta car\n")
    part = {"file": "calibration.txt", "samples": 3, "sha256": sha256_file(folder / "calibration.txt"), **changes}
    lines = ["[calibration]", *(f"{key} = {json.dumps(value)}" for key, value in part.items())]
    (folder / "manifest.toml").write_text(
        f"""name = "{folder.name}"
kind = "text"
language = "en"
licence = "CC0-1.0"
source = "written for a test"
preprocessing = "none"
{chr(10).join(lines)}
[[evaluation]]
name = "pairs"
file = "pairs.tsv"
samples = 2
sha256 = "{sha256_file(folder / "pairs.tsv")}"
labels = "similarity, 0 to 5"
"""
    )
    return folder


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [0]), (2, [0, 5]), (3, [0, 3, 6]), (4, [0, 2, 5, 7]), (10, list(range(10)))]
)
def test_calibration_samples_are_spread_evenly(ten: Path, limit: int, expected: list[int]) -> None:
    dataset = load_calibration(str(ten), limit)
    assert list(dataset.samples) == [f"text {i}" for i in expected]
    assert (dataset.name, dataset.kind, dataset.labels, dataset.pairs) == ("ten", "text", None, False)
    assert dataset.origin == {"source": "given by the user"}


@given(count=st.integers(1, 60), share=st.floats(0.01, 1))
def test_a_spread_has_no_repeats_and_keeps_the_order(
    count: int, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("spread") / "x.npz"
    np.savez(path, x=np.arange(count), y=np.arange(count))
    limit = max(1, int(count * share))
    dataset = load_calibration(str(path), limit)
    values = [int(sample["x"]) for sample in dataset.samples]
    assert len(values) == limit
    assert values == sorted(set(values)) == dataset.labels


def test_too_few_samples(ten: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_calibration(str(ten), 512, exact=True)
    assert caught.value.message == "The data set 'ten' has 10 samples, 512 were asked for."
    assert caught.value.remedy == "Use --calibration-samples 10, or give more data."


def test_a_set_smaller_than_the_usual_number_is_taken_whole(ten: Path) -> None:
    assert len(load_calibration(str(ten), 512).samples) == len(load_training(str(ten), 512).samples) == 10


def test_evaluation_on_a_file_is_one_whole_set(ten: Path) -> None:
    (dataset,) = load_evaluation(str(ten))
    assert len(dataset.samples) == 10


def test_the_digest_is_of_the_contents(tmp_path: Path, ten: Path) -> None:
    copy = Path(shutil.copy(ten, tmp_path / "copy.txt"))
    other = tmp_path / "other.txt"
    other.write_text(ten.read_text() + "one more\n")
    digest = load_calibration(str(ten), 5).digest
    assert load_calibration(str(copy), 7).digest == digest
    assert load_calibration(str(other), 5).digest != digest


def test_pairs_keep_their_two_texts_for_calibration(tmp_path: Path) -> None:
    dataset = load_calibration(str(write_set(tmp_path / "mine") / "pairs.tsv"), 1)
    assert (list(dataset.samples), dataset.labels, dataset.pairs) == ([("a cat", "the cat")], [5.0], True)


def test_a_folder_with_a_manifest(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mine")
    dataset = load_calibration(str(folder), 3)
    assert (dataset.name, list(dataset.samples)) == ("mine", ["a", "b", "c"])
    assert dataset.origin == {"source": "written for a test", "licence": "CC0-1.0", "preprocessing": "none"}
    (pairs,) = load_evaluation(str(folder))
    assert (pairs.name, pairs.labels, pairs.pairs) == ("mine/pairs", [5.0, 0.5], True)


def test_a_local_set_hides_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "calibration" / "images-procedural")
    monkeypatch.chdir(tmp_path)
    assert load_calibration("images-procedural", 3).kind == "text"


def test_unknown_name() -> None:
    with pytest.raises(UsageError) as caught:
        load_calibration("images-procedurl", 1)
    assert caught.value.message == (
        "There is no data set 'images-procedurl', and no such file or folder. Did you mean 'images-procedural'?"
    )
    assert caught.value.remedy == (f"Give the name of a set, or: {ALLOWED}.")


def test_unsupported_extension(tmp_path: Path) -> None:
    (tmp_path / "data.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError) as caught:
        load_evaluation(str(tmp_path / "data.xlsx"))
    assert caught.value.message == "The file 'data.xlsx' cannot be read as data."
    assert caught.value.remedy == (
        "Allowed: .txt, .jsonl, .csv, .tsv, .parquet, .npz, COCO or SQuAD .json, a folder of images (for "
        "objects labels/, for pixels masks/ or depths/ beside images/), of .wav or .flac, or of an .npz per sequence."
    )


def test_a_set_without_evaluation(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mine")
    manifest = folder / "manifest.toml"
    manifest.write_text(manifest.read_text().split("[[evaluation]]")[0])
    with pytest.raises(UsageError, match=r"^The data set 'mine' has no evaluation part\.\n"):
        load_evaluation(str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sha256": "0" * 64},
            "mine/calibration.txt is not the file that manifest.toml describes: its sha256 differs.",
        ),
        ({"samples": 4}, "mine/calibration.txt has 3 samples, manifest.toml says 4."),
        ({"file": "gone.txt"}, "mine/manifest.toml names 'gone.txt', which is missing."),
        ({"file": "data.bin"}, "manifest.toml names the file 'data.bin'. Allowed: .txt, .jsonl, .csv, .tsv, .parquet."),
        ({"file": "../a.txt"}, "manifest.toml names the file '../a.txt', which is outside its folder."),
        ({"file": "a/../../b.txt"}, "manifest.toml names the file 'a/../../b.txt', which is outside its folder."),
        ({"file": "/etc/a.txt"}, "manifest.toml names the file '/etc/a.txt', which is outside its folder."),
        ({"file": "..\\a.txt"}, r"manifest.toml names the file '..\\a.txt', which is outside its folder."),
        ({"file": "C:a.txt"}, "manifest.toml names the file 'C:a.txt', which is outside its folder."),
    ],
)
def test_a_manifest_that_does_not_fit(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    folder = write_set(tmp_path / "mine", **changes)
    with pytest.raises(UsageError) as caught:
        load_calibration(str(folder), 1)
    assert caught.value.message == message


def test_all_mistakes_of_a_manifest_are_named_at_once(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mine", sha256="abc", sample=3)
    with pytest.raises(UsageError) as caught:
        load_calibration(str(folder), 1)
    first, *mistakes = caught.value.message.splitlines()
    assert first == "mine/manifest.toml has 2 mistakes:"
    assert "  - calibration.sample: unknown key. Did you mean 'samples'?" in mistakes


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sets_are_whole_and_disjoint(name: str) -> None:
    calibration = load_calibration(name, 1)
    assert calibration.origin["licence"]
    for dataset in load_evaluation(name):
        assert dataset.name.startswith(f"{name}/")
        assert dataset.digest != calibration.digest


def test_procedural_images() -> None:
    dataset = load_calibration("images-procedural", 512)
    (evaluation,) = load_evaluation("images-procedural")
    assert (dataset.kind, len(dataset.samples), len(evaluation.samples)) == ("image", 512, 128)
    assert dataset.samples[511].shape == (224, 224, 3)
    assert not np.array_equal(dataset.samples[511], evaluation.samples[0])


def test_a_generator_that_draws_other_images(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(available_sets()["images-procedural"], folder)
    manifest = folder / "manifest.toml"
    manifest.write_text(manifest.read_text().replace("seed = 20240", "seed = 1").replace("size = 224", "size = 16"))
    with pytest.raises(UsageError) as caught:
        load_calibration(str(folder), 1)
    assert caught.value.message == (
        "The images that the generator draws here for 'images-procedural' are not those that its manifest.toml "
        "describes: their sha256 differs."
    )
