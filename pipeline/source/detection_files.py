"""Images with labelled objects: YOLO folders and COCO annotation files.

Labels of an image: a list of [class, centre x, centre y, width, height], relative to the image.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.source.contents import Contents, Lazy
from pipeline.source.image_folder import EXTENSIONS, open_image

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
    return _contents(files, [_objects(path) for path in labels], [path for path in labels if path.is_file()])


def _objects(path: Path) -> Objects:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [_object(line, f"{path.name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _object(line: str, where: str) -> list[float]:
    try:
        kind, *box = line.split()
        numbers = [float(int(kind)), *map(float, box)]
    except ValueError:
        numbers = []
    if len(numbers) != 5 or numbers[0] < 0:
        raise UsageError(f"{where} is {line.strip()!r}; allowed is `class cx cy w h`, relative to the image.")
    return numbers


def read_coco(path: Path) -> Contents:
    """A COCO annotation file (`images`, `annotations` with `bbox` in pixels); images lie beside it or in `images/`.

    Classes are the file's category ids, which COCO-trained models of the DETR type predict as they are. Crowd regions
    are left out. UsageError for a file that is none, and for images that are missing.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        images = sorted(data["images"], key=lambda image: image["file_name"])
        boxes: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for entry in data["annotations"]:
            if not entry.get("iscrowd"):
                boxes[entry["image_id"]].append(entry)
        labels = [[_relative(entry, image) for entry in boxes[image["id"]]] for image in images]
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise UsageError(
            f"{path.name} is not a COCO annotation file: {error!r}.", "It needs `images` and `annotations`."
        ) from error
    return _contents([_beside(path, image["file_name"]) for image in images], labels, [path])


def _relative(entry: dict[str, Any], image: dict[str, Any]) -> list[float]:
    x, y, width, height = entry["bbox"]
    across, down = image["width"], image["height"]
    centre = [(x + width / 2) / across, (y + height / 2) / down]
    return [float(entry["category_id"]), *centre, width / across, height / down]


def _beside(path: Path, name: str) -> Path:
    for place in (path.parent / name, path.parent / IMAGES / name):
        if place.is_file():
            return place
    raise UsageError(f"{path.name} names the image {name!r}, which is neither beside it nor in {IMAGES}/.")


def _contents(files: list[Path], labels: list[Objects], others: list[Path]) -> Contents:
    digest = sha256_json({file.name: sha256_file(file) for file in [*files, *others]})
    return Contents("image", Lazy(lambda index: open_image(files[index]), range(len(files))), digest, labels)
