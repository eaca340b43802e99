"""`reference/`: what is read is what was written for this bundle, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.bundle.manifest import MANIFEST
from pipeline.checks.float_reference import Facts, FloatReference
from pipeline.checks.reference_folder import FACTS, read_reference, reference_bytes, seal_reference, too_large
from pipeline.core.digest import pretty_json
from pipeline.core.errors import UsageError
from pipeline.data.samples import DATASET, INDEX, open_samples, write_samples
from pipeline.runtime.behaviour import Behaviour

OWN, OTHER = "a" * 64, "b" * 64
REMEDY = "Export again, or take the folder away: accuracy is then not measured."
BEHAVIOUR = Behaviour(family="logits", batch="free", padding="none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reference of four samples for the bundle `OWN`."""
    place = tmp_path / "reference"
    samples = place / "evaluation/0"
    samples.mkdir(parents=True)
    write_samples(samples, ({"x": np.full((1, 3), number, np.float32)} for number in range(4)))
    record = {"name": "s", "pairs": False, "labels": [0, 1, 0, 1], "samples": 4, "texts": [], "pads": {}}
    (samples / DATASET).write_text(pretty_json(record))
    (place / "float").mkdir()
    np.save(place / "float/0.npy", np.eye(4, dtype=np.float32))
    facts = Facts(behaviour=BEHAVIOUR, megabytes=2, speedup=None, cpu="a CPU", tried={}, quantization=None, ranges=None)
    (place / FACTS).write_text(pretty_json(facts.model_dump(mode="json")))
    seal_reference(place, OWN)
    return place


def refusal(folder: Path, bundle: str = OWN) -> str:
    with pytest.raises(UsageError) as refused:
        read_reference(folder, bundle)
    return refused.value.message


def test_what_was_written_is_read(folder: Path) -> None:
    found = read_reference(folder, OWN)
    assert found is not None
    assert (found.float_model, found.megabytes, found.behaviour) == (None, 2, BEHAVIOUR)
    assert [row["x"][0, 0] for row in open_samples(found.evaluation / "0")] == [0, 1, 2, 3]


def test_where_there_is_none(tmp_path: Path) -> None:
    assert read_reference(tmp_path / "reference", OWN) is None
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference/thesis.txt").write_text("somebody's own")
    assert read_reference(tmp_path / "reference", OWN) is None


def test_of_another_bundle(folder: Path) -> None:
    assert refusal(folder, OTHER) == (
        f"The float reference {folder} belongs to another bundle (its digest begins with aaaaaaaaaaaa, this one's "
        "with bbbbbbbbbbbb)."
    )


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("float/0.npy", "was changed"),
        ("evaluation/0/0.bin", "was changed"),
        ("evaluation/0/dataset.json", "was changed"),
        (FACTS, "was changed"),
        ("float/1.npy", "was added"),
    ],
)
def test_a_byte_of_it_was_changed(folder: Path, name: str, how: str) -> None:
    file = folder / name
    content = file.read_bytes() if file.exists() else b"..."
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UsageError) as refused:
        read_reference(folder, OWN)
    assert refused.value.message == f"The float reference {folder} is damaged: {name} {how}."
    assert refused.value.remedy == REMEDY


def test_something_of_it_is_missing(folder: Path) -> None:
    (folder / "float/0.npy").unlink()
    assert refusal(folder).endswith("float is an empty folder.")
    (folder / "float").rmdir()
    assert refusal(folder).endswith("is damaged: float/0.npy is missing.")


def test_its_manifest_was_changed(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(pretty_json({**manifest, "bundle": OTHER}))
    assert refusal(folder, OTHER) == f"The float reference {folder} is damaged: {MANIFEST} was changed."


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"file": "../../../secret.bin"}, "0/index.json is no index of samples: "),
        ({"dtype": "|O8"}, "0/index.json is no index of samples: "),
        ({"shapes": [[1, 3]] * 3}, "0/index.json does not fit the values of 'x'."),
        ({"shapes": [[1, 3]] * 3 + [[1 << 40, 3]]}, "0/index.json does not fit the values of 'x'."),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused_however_it_is_sealed(
    folder: Path, entry: dict[str, object], said: str
) -> None:
    file = folder / "evaluation/0" / INDEX
    index = json.loads(file.read_text())
    index["inputs"]["x"] |= entry
    file.write_text(pretty_json(index))
    seal_reference(folder, OWN)
    assert refusal(folder).startswith(f"The float reference {folder} is damaged: {said}")


def test_outputs_that_are_no_numbers_are_refused_however_they_are_sealed(folder: Path) -> None:
    np.save(folder / "float/0.npy", np.array([{}]), allow_pickle=True)
    seal_reference(folder, OWN)
    assert "0.npy is no array of numbers" in refusal(folder)


def test_large_ones_do_not_travel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = FloatReference(None, folder / "evaluation", folder / "float", folder / "evaluation", BEHAVIOUR)
    assert too_large(reference) == ""
    monkeypatch.setattr("pipeline.checks.reference_folder.LARGEST", reference_bytes(reference) - 1)
    assert "only a machine with this store decides on its accuracy" in too_large(reference)
