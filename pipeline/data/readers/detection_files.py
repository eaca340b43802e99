"""Images with labelled objects: YOLO folders and COCO annotation files.

Labels of an image: a list of [class, centre x, centre y, width, height], relative to the image.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, read_json, read_text, refused, require_file
from pipeline.data.lazy import Contents, Lazy
from pipeline.data.readers.image_folder import EXTENSIONS, open_image

Objects = list[list[float]]
IMAGES, LABELS = "images", "labels"


def is_yolo(folder: Path) -> bool:
    return (folder / IMAGES).is_dir() and (folder / LABELS).is_dir()


def read_yolo(folder: Path) -> Contents:
    """`images/NAME.jpg` with `labels/NAME.txt`: a line `class cx cy w h` an object; no file means no object.

    UsageError for a line that is not five numbers, a class that is not a whole number, or no image.
    """
    files = sorted(path for path in (folder / IMAGES).iterdir() if path.suffix.lower() in EXTENSIONS)
    if not files:
        raise UsageError(f"There is no image in {folder.name}/{IMAGES}.", f"Allowed: {', '.join(EXTENSIONS)}.")
    labels = [folder / LABELS / f"{file.stem}.txt" for file in files]
    objects = [_objects(path) for path in labels]
    return _contents(files, objects, [path for path in labels if path.is_file()])


def _objects(path: Path) -> Objects:
    lines = read_text(path, Limit.TEXT).split("\n") if os.path.lexists(path) else []
    return [_object(line, f"{path.name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _object(line: str, where: str) -> list[float]:
    try:
        kind, *box = line.split()
        numbers = [float(int(kind)), *map(float, box)]
    except (ValueError, OverflowError):
        numbers = []
    if len(numbers) != 5 or not _is_object(numbers):
        raise UsageError(f"{where} is {line.strip()[:80]!r}; allowed is `class cx cy w h`, relative to the image.")
    return numbers


def _is_object(numbers: list[float]) -> bool:
    """A class that can be, and a box of finite numbers whose sides are not negative."""
    return all(map(math.isfinite, numbers)) and 0 <= numbers[0] < _CLASSES and min(numbers[3:]) >= 0


_CLASSES = 2**31


def read_coco(path: Path, data: Any = None) -> Contents:
    """A COCO annotation file (`images`, `annotations` with `bbox` in pixels); images lie beside it or in `images/`.

    Classes are the file's category ids, which COCO-trained models of the DETR type predict as they are. Crowd regions
    are left out. `data`: what the file holds, if it was read. UsageError for a file that is none, and for images that
    are missing.
    """
    data = read_json(path) if data is None else data
    with refused(f"{path.name} is not a COCO annotation file", "It needs `images` and `annotations`."):
        images = sorted(data["images"], key=lambda image: image["file_name"])
        boxes: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for entry in data["annotations"]:
            if not entry.get("iscrowd"):
                boxes[entry["image_id"]].append(entry)
        labels = [[_relative(entry, image, path.name) for entry in boxes[image["id"]]] for image in images]
        poses = [
            (place, entry)
            for place, image in enumerate(images)
            for entry in boxes[image["id"]]
            if any(entry.get("keypoints", ())[2::3])
        ]
    if not images:
        raise UsageError(f"{path.name} names no image.", "It needs `images` and `annotations`.")
    found = _contents([_beside(path, image["file_name"]) for image in images], labels, [path])
    return replace(found, poses=_poses(found, poses, path.name)) if poses else found


def _poses(found: Contents, entries: list[tuple[int, dict[str, Any]]], name: str) -> Contents:
    """Objects cut out of their images by their boxes, with float64 [points, 3]: x and y relative to the cutting, and
    whether a point is labelled (0: it is not scored). UsageError for a box outside the image, or keypoints that are not
    numbers in threes."""
    with refused(f"The keypoints of {name} cannot be read", "They are x, y, v of each point, as COCO has them."):
        points = [np.asarray(entry["keypoints"], np.float64).reshape(-1, 3) for _, entry in entries]
        places = [_cut(entry["bbox"]) for _, entry in entries]
        if len({len(one) for one in points}) > 1 or not all(np.isfinite(one).all() for one in points):
            raise ValueError("objects have different numbers of points, or some that are not finite")
    labels = [
        (one - [left, top, 0]) / [right - left, bottom - top, 1]
        for one, (left, top, right, bottom) in zip(points, places, strict=True)
    ]

    def make(index: int) -> NDArray[np.uint8]:
        left, top, right, bottom = places[index]
        part = found.samples[entries[index][0]][max(top, 0) : bottom, max(left, 0) : right]
        if not part.size:
            raise UsageError(f"{name} has the box {entries[index][1]['bbox']!r}, which is outside its image.")
        return part

    note = f"Each of the {len(entries)} objects of {name} that have keypoints is a sample, cut out by its box."
    return Contents("image", Lazy(make, range(len(entries))), found.digest, labels, notes=(note,))


def _cut(box: list[float]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a box as COCO has it, in whole pixels."""
    x, y, width, height = map(float, box)
    left, top = math.floor(max(x, 0)), math.floor(max(y, 0))
    return left, top, max(math.ceil(x + width), left + 1), max(math.ceil(y + height), top + 1)


def _relative(entry: dict[str, Any], image: dict[str, Any], name: str) -> list[float]:
    x, y, width, height = map(float, entry["bbox"])
    across, down = image["width"], image["height"]
    centre = [(x + width / 2) / across, (y + height / 2) / down]
    numbers = [float(entry["category_id"]), *centre, width / across, height / down]
    if not _is_object(numbers):
        raise UsageError(
            f"{name} has the box {entry['bbox']!r} of class {entry['category_id']!r} in {image['file_name']!r}."
        )
    return numbers


def _beside(path: Path, name: Any) -> Path:
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise UsageError(f"{path.name} names the image {name!r}, which is outside its folder.")
    for place in (path.parent / name, path.parent / IMAGES / name):
        if place.is_file():
            return place
    raise UsageError(f"{path.name} names the image {name!r}, which is neither beside it nor in {IMAGES}/.")


def _contents(files: list[Path], labels: list[Objects], others: list[Path]) -> Contents:
    for file in files:
        require_file(file, Limit.IMAGE)
    digest = sha256_json({file.name: sha256_file(file) for file in [*files, *others]})
    return Contents("image", Lazy(lambda index: open_image(files[index]), range(len(files))), digest, labels)
