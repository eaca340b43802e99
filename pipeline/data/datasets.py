"""Raw data sets for calibration and evaluation: shipped ones by name, the user's own by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.config.loading import search_folders
from pipeline.core.errors import UsageError, suggest
from pipeline.core.untrusted import read_json, user_path
from pipeline.data.lazy import Contents, Lazy
from pipeline.data.manifest import MANIFEST, read_manifest
from pipeline.data.readers.audio_folder import has_audio, read_audio
from pipeline.data.readers.depth_folder import DEPTHS, read_depths
from pipeline.data.readers.detection_files import is_yolo, read_coco, read_yolo
from pipeline.data.readers.image_folder import read_images
from pipeline.data.readers.mask_folder import has_maps, read_masks
from pipeline.data.readers.questions import is_squad, read_squad
from pipeline.data.readers.tables import USUAL, Columns
from pipeline.data.readers.tensor_files import has_sequences, read_sequences, read_tensors
from pipeline.data.readers.text_files import SUFFIXES as TEXT_SUFFIXES
from pipeline.data.readers.text_files import read_list, read_texts
from pipeline.tasks.output_kind import OutputKind

SUFFIXES = (*TEXT_SUFFIXES, ".npz")
ALLOWED = (
    f"{', '.join(SUFFIXES)}, COCO or SQuAD .json, a folder of images (for objects labels/, for pixels masks/ or "
    "depths/ beside images/), of .wav or .flac, or of an .npz per sequence"
)
_GIVEN = {"source": "given by the user"}


@dataclass(frozen=True)
class Dataset:
    """Samples as they are before tokenization or image processing.

    `samples`: texts are str, or (str, str) if `pairs`; words are lists of str; questions are (question, context);
    problems are of the class `Problem`; recordings are (float32 [n], rate); images are uint8 [H, W, 3], opened when
    asked for; tensors are dicts of arrays by input name, without a batch axis. `labels`: similarity scores of pairs, a
    class per word, {"answers": texts} of questions, the objects of an image as [class, cx, cy, w, h] relative to it,
    the classes of its pixels as int32 [H, W], otherwise as `pipeline/data/labels.py` has them. `digest`: sha256 over
    the whole set's contents, whatever its path and however many samples were taken from it. `origin`: source, licence
    and preprocessing as the manifest states them. `notes`: what was assumed to read them. `classes`: the names of the
    classes that labels number, where the data say them. `sequences`: the lengths of those that the samples are steps
    of, one after the other; none if each stands for itself. `states`: of steps, input -> the output that is its value
    in the next one. `poses`: see `Contents`.
    """

    name: str
    kind: Literal["text", "words", "questions", "problems", "image", "audio", "tensor"]
    samples: Sequence[Any]
    labels: Sequence[Any] | None
    pairs: bool
    digest: str
    origin: dict[str, str]
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    sequences: tuple[int, ...] = ()
    states: Mapping[str, str] = field(default_factory=dict)
    poses: Contents | None = None


def load_calibration(spec: str, limit: int, exact: bool = False, columns: Columns = USUAL) -> Dataset:
    """`limit` samples of the set that `spec` names, evenly spread over it (the same ones every time); all, if there are
    fewer and not `exact`ly that many are asked for.

    `spec`: a set in `calibration/` (here, or shipped with the tool), a .txt, .jsonl, .csv, .tsv or .npz file,
    a folder of images, or a folder with a manifest.toml. UsageError if there is none, or it cannot be read,
    or has fewer samples than are asked for.
    """
    dataset = load_whole(spec, columns)
    require_count(dataset, limit, exact)
    return evenly(dataset, min(len(dataset.samples), limit))


def require_count(dataset: Dataset, limit: int, exact: bool) -> None:
    """UsageError if a set has fewer samples than are `exact`ly asked for."""
    count = len(dataset.samples)
    if exact and count < limit:
        raise UsageError(
            f"The data set {dataset.name!r} has {count} samples, {limit} were asked for.",
            f"Use --calibration-samples {count}, or give more data.",
        )


def load_whole(spec: str, columns: Columns = USUAL) -> Dataset:
    """All samples of the set that `spec` (see `load_calibration`) names; of one with parts, those to calibrate with.

    UsageError if there is none, or it cannot be read.
    """
    place = _locate(spec)
    if not _has_manifest(place):
        return _own(place, columns)
    manifest = read_manifest(place)
    return _dataset(manifest.name, manifest.read_calibration(place), manifest.origin)


def load_training(spec: str, limit: int | None, columns: Columns = USUAL) -> Dataset:
    """`limit` samples evenly spread over the set that `spec` names, or all of them, if there are not so many too."""
    return load_whole(spec, columns) if limit is None else load_calibration(spec, limit, columns=columns)


def load_evaluation(spec: str, columns: Columns = USUAL) -> list[Dataset]:
    """Every evaluation set that `spec` (see `load_calibration`) names; a file or a folder of images is one.

    UsageError if there is none, or it cannot be read.
    """
    place = _locate(spec)
    if not _has_manifest(place):
        return [_own(place, columns)]
    manifest = read_manifest(place)
    if not manifest.evaluation:
        raise UsageError(f"The data set {manifest.name!r} has no evaluation part.", "Give other data to evaluate on.")
    return [
        _dataset(f"{manifest.name}/{name}", contents, manifest.origin)
        for name, contents in manifest.read_evaluation(place)
    ]


def available_sets() -> dict[str, Path]:
    """Name -> folder of every set in `calibration/`; a local one hides a shipped one of the same name."""
    found: dict[str, Path] = {}
    for place in search_folders("calibration"):
        for manifest in sorted(place.glob(f"*/{MANIFEST}")):
            found.setdefault(manifest.parent.name, manifest.parent)
    return dict(sorted(found.items()))


def _locate(spec: str) -> Path:
    """The folder of a named set, or the path; a name wins, and `./name` gives a folder that is called so."""
    known = available_sets()
    if spec in known:
        return known[spec]
    path = user_path(spec)
    if not path.exists():
        raise UsageError(
            f"There is no data set {spec!r}, and no such file or folder. {suggest(spec, known)}",
            f"Give the name of a set, or: {ALLOWED}.",
        )
    return path


def _has_manifest(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def _own(path: Path, columns: Columns) -> Dataset:
    return _dataset(path.resolve().stem if path.is_file() else path.resolve().name, _read(path, columns), _GIVEN)


def _read(path: Path, columns: Columns) -> Contents:
    if path.is_dir():
        return _read_folder(path, columns)
    if path.suffix.lower() == ".json":
        return _read_json(path, columns)
    if path.suffix.lower() in TEXT_SUFFIXES:
        return read_texts(path, columns)
    if path.suffix.lower() == ".npz":
        return read_tensors(path)
    raise UsageError(
        f"The file {path.name!r} cannot be read as data.",
        f"Allowed: {ALLOWED}.",
    )


def _read_json(path: Path, columns: Columns) -> Contents:
    """Questions as SQuAD has them, a list of objects as .jsonl has them, by itself or as `data`, or objects of images
    as COCO has them."""
    data = read_json(path)
    if is_squad(data):
        return read_squad(path, data)
    rows = data.get("data") if isinstance(data, dict) and "images" not in data else data
    return read_list(path, rows, columns) if isinstance(rows, list) else read_coco(path, data)


def _read_folder(path: Path, columns: Columns) -> Contents:
    if is_yolo(path):
        return read_yolo(path)
    if has_maps(path):
        return read_masks(path)
    if has_maps(path, DEPTHS):
        return read_depths(path)
    if has_sequences(path):
        return read_sequences(path)
    return read_audio(path, columns) if has_audio(path) else read_images(path, columns)


def _dataset(name: str, contents: Contents, origin: dict[str, str]) -> Dataset:
    return Dataset(
        name,
        contents.kind,
        contents.samples,
        contents.labels,
        contents.pairs,
        contents.digest,
        dict(origin),
        contents.notes,
        contents.classes,
        poses=contents.poses,
    )


def _with_poses(dataset: Dataset) -> Dataset:
    """The set for a model of keypoints: where objects have some, each is a sample."""
    poses = dataset.poses
    if poses is None:
        return dataset
    return replace(dataset, samples=poses.samples, labels=poses.labels, notes=poses.notes, poses=None)


def running_texts(dataset: Dataset) -> Dataset:
    """The set for a model whose texts are their own labels: both sides of pairs are texts."""
    samples: Sequence[Any] = dataset.samples
    if dataset.pairs:
        samples = [text for side in (0, 1) for text in dict.fromkeys(pair[side] for pair in dataset.samples)]
    return replace(dataset, samples=samples, labels=None, pairs=False)


def suited(dataset: Dataset, kind: OutputKind) -> Dataset:
    """The set with the samples and labels that a model of this kind of output takes."""
    if kind.self_labelled and dataset.kind == "problems":
        return replace(dataset, kind="text", samples=[problem.whole for problem in dataset.samples])
    if kind.self_labelled and dataset.kind == "text":
        return running_texts(dataset)
    return _with_poses(dataset) if kind.points else dataset


def evenly(dataset: Dataset, limit: int) -> Dataset:
    """Sample i * n // limit of n for each i < limit."""
    count = len(dataset.samples)
    chosen = [index * count // limit for index in range(limit)]
    labels: Sequence[Any] | None = dataset.labels
    if isinstance(labels, Lazy):
        labels = Lazy(labels.__getitem__, chosen)
    elif labels is not None:
        labels = [labels[index] for index in chosen]
    samples = Lazy(dataset.samples.__getitem__, chosen)
    return replace(dataset, samples=samples, labels=labels)
