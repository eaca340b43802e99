"""`golden/`: a few inputs with the outputs that a bundle must give, as numbered .npy files.

`golden.json` maps the names of inputs and outputs, which may be anything, to the files of each sample's folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.bundle.records import read_record
from pipeline.core.digest import pretty_json
from pipeline.core.errors import IntegrityError
from pipeline.core.types import StrictModel
from pipeline.data.npy import NO_HEADER, read_npy
from pipeline.devices.worker import Feed

GOLDEN, RECORD = "golden", "golden.json"
TOLERANCE = 0.02
"""Share of the largest expected output by which another CPU's answer may differ at least: INT8 kernels agree to 1e-7,
4-bit products with INT8 arithmetic differ by up to 0.06 standard deviations between instruction sets. Where a float
that is rounded to a code lies between two of them, sums in another order choose the other, which may change outputs by
more: what ships is run in such another way, and twice that difference is allowed."""
MOST = 0.25
"""What is allowed at most: a model that is broken must not pass."""


class NamedFile(StrictModel):
    """An input or output of the model, and the file that holds it in the folder of every sample."""

    name: str
    file: Annotated[str, Field(pattern=r"^(input|output)-[0-9]{1,6}\.npy$")]


class Golden(StrictModel):
    """What `golden.json` says. The samples' folders are `0`, `1` and so on. `texts`: what the inputs were made of;
    `raw`: or the file in each folder that they were made of, an image or a recording."""

    samples: Annotated[int, Field(ge=0, le=1000)]
    inputs: tuple[NamedFile, ...]
    outputs: tuple[NamedFile, ...]
    tolerance: Annotated[float, Field(gt=0)]
    texts: tuple[str, ...] = ()
    raw: str = Field(default="", exclude_if=lambda name: not name)


def write_golden(
    bundle: Path,
    samples: Sequence[tuple[Feed, Feed]],
    texts: Sequence[str],
    tolerance: float = TOLERANCE,
    raw: Sequence[Path] = (),
) -> None:
    """Write `golden/` from (inputs, outputs) by name of each sample, and the texts or files that they came from."""
    feeds = samples[0] if samples else ({}, {})
    inputs, outputs = (
        tuple(NamedFile(name=name, file=f"{side}-{number}.npy") for number, name in enumerate(feed))
        for side, feed in zip(("input", "output"), feeds, strict=True)
    )
    for number, sample in enumerate(samples):
        folder = bundle / GOLDEN / str(number)
        folder.mkdir(parents=True)
        for files, feed in zip((inputs, outputs), sample, strict=True):
            for entry in files:
                np.save(folder / entry.file, feed[entry.name])
    for number, file in enumerate(raw):
        shutil.copyfile(file, bundle / GOLDEN / str(number) / file.name)
    record = Golden(
        samples=len(samples),
        inputs=inputs,
        outputs=outputs,
        tolerance=tolerance,
        texts=tuple(texts[: len(samples)]),
        raw=raw[0].name if raw else "",
    )
    (bundle / GOLDEN).mkdir(exist_ok=True)
    (bundle / GOLDEN / RECORD).write_text(pretty_json(record.model_dump(mode="json")), encoding="utf-8", newline="\n")


def read_golden(bundle: Path) -> Golden:
    """What the bundle's `golden.json` says; UsageError if it cannot be read."""
    return read_record(Golden, bundle, f"{GOLDEN}/{RECORD}")


def golden_arrays(bundle: Path, number: int, files: Sequence[NamedFile]) -> Feed:
    """Arrays by name: the inputs or the outputs of one sample. IntegrityError if one is damaged."""
    folder = bundle / GOLDEN / str(number)
    return {entry.name: read_array(folder / entry.file) for entry in files}


def read_array(path: Path) -> NDArray[Any]:
    """The array of an .npy file: plain numbers, as many as the file has bytes for, so that no header claims more.
    IntegrityError for any other."""
    try:
        with path.open("rb") as file:
            held = path.stat().st_size
            array = read_npy(file, held)
            if file.tell() != held:
                raise ValueError(f"{array.dtype} {list(array.shape)} does not fit its {held} bytes")
            return array
    except NO_HEADER as error:
        place = "/".join(path.parts[-3:])
        raise IntegrityError(f"The bundle's {place} is no array of numbers: {error}.", "Export it again.") from error
