"""Comparisons in the store, so that an export can show what `edge compare` found about the same bundle.

Read by reports only; a verdict never rests on them.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config.target import THIS_MACHINE, Shape
from pipeline.core.digest import pretty_json, sha256_json
from pipeline.core.documents import DocumentError, read_json
from pipeline.core.paths import FOLDER, NOTHING, kind_of, odd_place, write_whole
from pipeline.core.report_types import COMPARISON_VERSION, Comparison

_FOLDER = "comparisons"


def comparison_key(
    bundle_digest: str, evaluation_digest: str, shape: Shape, metric: str | None, runner: str = THIS_MACHINE
) -> str:
    """What a comparison is about: a bundle (and with it its runtime), the evaluation sets, the shape that was measured
    at, a user's metric, and the runner, if it was another machine."""
    elsewhere = [] if runner == THIS_MACHINE else [runner]
    return sha256_json([bundle_digest, evaluation_digest, shape.model_dump(mode="json"), metric, *elsewhere])


def keep_comparison(store: Path, key: str, comparison: Comparison) -> None:
    """Replace what was known under `key`. StageError if something else than a folder is in the place of all of them."""
    folder = store / _FOLDER
    if kind_of(folder) not in (NOTHING, FOLDER):
        raise odd_place(folder, FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{key}.json", pretty_json(comparison.model_dump(mode="json")))


def known_comparison(store: Path, key: str) -> Comparison | None:
    """The last comparison under `key`; None without one, and for one of another version."""
    try:
        comparison = Comparison.model_validate(read_json(store / _FOLDER / f"{key}.json"))
    except (
        DocumentError,
        ValueError,
    ):  # pydantic's too; it only decorates a report, and the next `edge compare` writes it anew
        return None
    return comparison if comparison.version == COMPARISON_VERSION else None
