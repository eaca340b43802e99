"""One case: a bad input in a folder, what is bad about it, and the probe that reads it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from benchmarks.fuzz.mutate import damage_bytes, special_file

Case = tuple[str, Callable[[], object]]
Kind = Callable[[Path, Path, Random], Case]


def damage(path: Path, dice: Random, text: Callable[[str, Random], str] | None = None) -> str:
    """Damage a file in place: as a tree if `text` can, as bytes, or what kind of file it is."""
    chance = dice.random()
    if chance < 0.12:
        return special_file(path, dice)
    if text is not None and chance < 0.75:
        changed = text(path.read_text(encoding="utf-8"), dice)
        path.write_bytes(changed.encode("utf-8", "surrogatepass"))
        return "tree"
    path.write_bytes(damage_bytes(path.read_bytes(), dice))
    return "bytes"


def bring(place: Path, seeds: Path, *names: str) -> None:
    for name in ("target.toml", "texts.txt", *names):
        if (seeds / name).is_dir():
            shutil.copytree(seeds / name, place / name)
        else:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(seeds / name, place / name)


TEXTS = {"calibration_data": "texts.txt", "eval_data": ("texts.txt",)}
