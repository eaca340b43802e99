"""Data sets with a manifest.toml: what they are, where they come from, and the sha256 of what they hold."""

from __future__ import annotations

import hashlib
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.core.types import StrictModel
from pipeline.core.untrusted import Limit, read_toml, require_file
from pipeline.data.lazy import Contents, Lazy
from pipeline.data.readers.text_files import SUFFIXES, read_texts
from pipeline.data.synthetic import render

MANIFEST = "manifest.toml"
CHECKED_IMAGES = 8
"""How many of a procedural set's images its sha256 covers."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class TextPart(StrictModel):
    """One file of texts. `labels` says in words what its labels are."""

    file: str
    samples: PositiveInt
    sha256: Sha256
    labels: str = ""


class NamedTextPart(TextPart):
    name: str


class ImagePart(StrictModel):
    """Images `first` to `first + samples - 1`; `sha256` is over the bytes of the first `CHECKED_IMAGES`."""

    first: NonNegativeInt
    samples: Annotated[int, Field(gt=0, le=1_000_000)]
    sha256: Sha256


class NamedImagePart(ImagePart):
    name: str


class _Manifest(StrictModel):
    name: str
    licence: str
    source: str
    preprocessing: str

    @property
    def origin(self) -> dict[str, str]:
        return {"source": self.source, "licence": self.licence, "preprocessing": self.preprocessing}


class TextManifest(_Manifest):
    kind: Literal["text"]
    language: str
    calibration: TextPart
    evaluation: tuple[NamedTextPart, ...] = ()

    def read_calibration(self, folder: Path) -> Contents:
        """The calibration samples; UsageError if they are not those that the manifest describes."""
        return _open_texts(folder, self.calibration)

    def read_evaluation(self, folder: Path) -> list[tuple[str, Contents]]:
        """The evaluation parts by name; UsageError if they are not those that the manifest describes."""
        return [(part.name, _open_texts(folder, part)) for part in self.evaluation]


class ImageManifest(_Manifest):
    """`size`: side of the images in pixels; `seed`: of the generator in pipeline/data/synthetic.py."""

    kind: Literal["image"]
    generator: Literal["procedural"]
    size: Annotated[int, Field(gt=0, le=4096)]
    seed: NonNegativeInt
    calibration: ImagePart
    evaluation: tuple[NamedImagePart, ...] = ()

    def read_calibration(self, folder: Path) -> Contents:  # noqa: ARG002  # images need no file
        """The calibration images; UsageError if this generator draws others."""
        return _open_images(self, self.calibration)

    def read_evaluation(self, folder: Path) -> list[tuple[str, Contents]]:  # noqa: ARG002
        """The evaluation parts by name; UsageError if this generator draws others."""
        return [(part.name, _open_images(self, part)) for part in self.evaluation]


Manifest = TextManifest | ImageManifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a data set's folder; UsageError with all its mistakes."""
    data, where = read_toml(folder / MANIFEST), f"{folder.name}/{MANIFEST}"
    if data.get("kind") == "image":
        return ImageManifest.from_data(data, where)
    return TextManifest.from_data(data, where)


def _open_texts(folder: Path, part: TextPart) -> Contents:
    path = folder / _inside(part.file)
    if not path.exists():
        raise UsageError(f"{folder.name}/{MANIFEST} names {part.file!r}, which is missing.", "Restore the file.")
    require_file(path, Limit.TEXT)
    if sha256_file(path) != part.sha256:
        raise UsageError(
            f"{folder.name}/{part.file} is not the file that {MANIFEST} describes: its sha256 differs.",
            "Restore it, or give your own file by its path.",
        )
    contents = read_texts(path)
    if len(contents.samples) != part.samples:
        raise UsageError(
            f"{folder.name}/{part.file} has {len(contents.samples)} samples, {MANIFEST} says {part.samples}."
        )
    return contents


def _inside(file: str) -> str:
    """`file` if it stays within the manifest's folder on every system, and is a text file."""
    parts = re.split(r"[/\\]", file)
    if ".." in parts or parts[0] == "" or ":" in file or "\0" in file:
        raise UsageError(f"{MANIFEST} names the file {file!r}, which is outside its folder.")
    if Path(file).suffix.lower() not in SUFFIXES:
        raise UsageError(f"{MANIFEST} names the file {file!r}. Allowed: {', '.join(SUFFIXES)}.")
    return file


def _open_images(manifest: ImageManifest, part: ImagePart) -> Contents:
    make = partial(render, size=manifest.size, seed=manifest.seed)
    images = Lazy(make, range(part.first, part.first + part.samples))
    digest = hashlib.sha256()
    for image in images[:CHECKED_IMAGES]:
        digest.update(image.tobytes())
    if digest.hexdigest() != part.sha256:
        raise UsageError(
            f"The images that the generator draws here for {manifest.name!r} are not those that its "
            f"{MANIFEST} describes: their sha256 differs.",
            "Use the generator and the manifest of one version, or give a folder of images by its path.",
        )
    identity = {"size": manifest.size, "seed": manifest.seed, "first": part.first, "samples": part.samples}
    return Contents("image", images, sha256_json({**identity, "sha256": part.sha256}))
