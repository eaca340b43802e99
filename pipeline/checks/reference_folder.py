"""`reference/` beside a bundle: what the float model answers to the evaluation samples, so that a machine which has
neither the float model nor the store that the bundle was made in decides on its accuracy.

    manifest.json    sha256 of every file, and the bundle that it belongs to
    reference.json   what else the export knew (`checks.reference.Facts`)
    evaluation/      the samples as the bundle takes them, with their labels
    float/           the float model's judged outputs on them
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.bundle.golden import read_array
from pipeline.bundle.manifest import MANIFEST, File, require_inside, require_whole
from pipeline.bundle.records import read_object
from pipeline.checks.float_reference import Facts, FloatReference, Tried
from pipeline.checks.measurements import Measurements
from pipeline.core.artifact import RECORD, changes, list_files
from pipeline.core.digest import SHA256, pretty_json, sha256_json, tree
from pipeline.core.errors import IntegrityError, UsageError
from pipeline.core.paths import NOTHING, kind_of
from pipeline.core.types import StrictModel
from pipeline.data.samples import evaluation_folders, require_samples

FACTS = "reference.json"
LARGEST = 512_000_000
"""Bytes of samples and outputs that travel with a bundle."""
_EVALUATION, _FLOAT = "evaluation", "float"
_Sha256 = Annotated[str, Field(pattern=f"^{SHA256.pattern}$")]
_WHAT = "the float reference"
_REMEDY = "Export again, or take the folder away: accuracy is then not measured."


class ReferenceManifest(StrictModel):
    """`manifest.json`. `bundle` is the digest of the bundle; `digest` covers everything else in it."""

    format: Literal[1]
    bundle: _Sha256
    files: dict[str, File]
    digest: _Sha256


def reference_bytes(reference: FloatReference) -> int:
    """What the samples and the outputs of a reference take."""
    folders = (reference.evaluation, reference.reference)
    return sum(size for folder in folders for name, size in tree(folder).items() if name != RECORD)


def too_large(reference: FloatReference) -> str:
    """Why samples and outputs do not travel, for the report; empty if they do."""
    size = reference_bytes(reference)
    if size <= LARGEST:
        return ""
    return (
        f"The evaluation samples and float's outputs take {size / 1e6:,.0f} MB; up to {LARGEST / 1e6:,.0f} MB are put "
        "beside a bundle (reference/): only a machine with this store decides on its accuracy. Evaluate on fewer "
        "samples to change that."
    )


def write_reference(folder: Path, bundle: str, found: Measurements, tried: Tried) -> None:
    """Make `folder` for the bundle of that digest, which was just exported and measured."""
    reference, records = found.case.reference, found.records
    assert reference is not None  # noqa: S101  # an export has one
    for name, artifact in ((_EVALUATION, reference.evaluation), (_FLOAT, reference.reference)):
        shutil.copytree(artifact, folder / name, ignore=shutil.ignore_patterns(RECORD), copy_function=shutil.copyfile)
    facts = Facts(
        behaviour=reference.behaviour,
        megabytes=reference.megabytes,
        speedup=records.latency.speedup if records.latency else None,
        cpu=found.case.giving("times").info().cpu,
        tried=tried,
        quantization=records.quantization,
        ranges=records.ranges,
        texts=records.texts,
        exact_match=records.exact_match,
    )
    (folder / FACTS).write_text(pretty_json(facts.model_dump(mode="json")), encoding="utf-8", newline="\n")
    seal_reference(folder, bundle)


def seal_reference(folder: Path, bundle: str) -> None:
    """Write the manifest of a filled folder, for the bundle of that digest."""
    (folder / MANIFEST).unlink(missing_ok=True)
    record = {"format": 1, "bundle": bundle, "files": list_files(folder)}
    (folder / MANIFEST).write_text(
        pretty_json({**record, "digest": sha256_json(record)}), encoding="utf-8", newline="\n"
    )


def read_reference(folder: Path, bundle: str) -> FloatReference | None:
    """The reference in `folder`, every byte of it verified; None if there is none.

    UsageError if it was made for another bundle than the one of that digest, or anything of it is missing, added or
    changed.
    """
    if kind_of(folder / MANIFEST) == NOTHING:
        return None
    try:
        _verify(folder, bundle)
        facts = Facts.from_data(read_object(folder, FACTS, _WHAT), f"{FACTS} of {_WHAT} {folder}")
        for number in evaluation_folders(folder / _EVALUATION):
            require_samples(number)
            read_array(folder / _FLOAT / f"{number.name}.npy")
    except IntegrityError as error:
        raise UsageError(f"The float reference {folder} is damaged: {error.message}.", _REMEDY) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"The float reference {folder} cannot be read: {error}.", _REMEDY) from error
    evaluation = folder / _EVALUATION
    return FloatReference(None, evaluation, folder / _FLOAT, evaluation, facts.behaviour, facts)


def _verify(folder: Path, bundle: str) -> None:
    manifest = read_object(folder, MANIFEST, _WHAT)
    ReferenceManifest.from_data(manifest, f"The manifest of {folder}")
    require_inside(folder, manifest["files"])
    require_whole(folder, manifest)
    if found := changes(folder, manifest["files"], {MANIFEST}):
        raise IntegrityError(found[0])
    if manifest["bundle"] != bundle:
        raise UsageError(
            f"The float reference {folder} belongs to another bundle (its digest begins with "
            f"{manifest['bundle'][:12]}, this one's with {bundle[:12]}).",
            _REMEDY,
        )
