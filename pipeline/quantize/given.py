"""Weights that the checkpoint has in codes already: found again in the graph by their values, and never rounded."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from pipeline.core.errors import StageError
from pipeline.core.stage import MODEL, StageContext
from pipeline.formats.format import Layer
from pipeline.numerics.affine import Float
from pipeline.numerics.coded import Coded, stacked
from pipeline.source.coded.checkpoint import coded_checkpoint
from pipeline.source.model_config import read_config

_Row = tuple[str, int]


class GivenCodes:
    """The codes of a checkpoint by the rows that they stand for.

    A graph may hold the rows of one weight in another order, or those of several below each other (queries, keys and
    values of one product). Only values decide.

    Args:
        codes: The codes of every weight by its name, read when they are called for.
    """

    def __init__(self, codes: Mapping[str, Callable[[], Coded]]) -> None:
        self._codes = codes
        self._places: dict[bytes, list[_Row]] = defaultdict(list)
        self._unseen = dict.fromkeys(codes)
        for name, read in codes.items():
            for row, values in enumerate(read().values()):
                self._places[_digest(values)].append((name, row))

    def of(self, layer: Layer) -> Coded | None:
        """The codes of a product's or a table's weight; None if the checkpoint has it in float. StageError if it has
        some of its rows in other codes than the rest, or in none."""
        if not self._codes or layer.op not in ("linear", "table"):
            return None
        return self._of_rows(np.ascontiguousarray(layer.weight.T) if layer.op == "linear" else layer.weight, layer)

    def _of_rows(self, rows: Float, layer: Layer) -> Coded | None:
        places = self._placed(rows)
        if not any(places):
            return None
        found = [place for place in places if place is not None]
        names = list(dict.fromkeys(name for name, _ in found))
        parts = [self._codes[name]() for name in names]
        if len(found) < len(rows) or len({part.form() for part in parts}) > 1:
            raise StageError(
                f"{layer.node.name!r} multiplies with {', '.join(names)}, which the checkpoint stores in different "
                "forms, or only some of them in codes: they cannot be one product.",
                "Please report it, with the model's config.json.",
            )
        for name in names:
            self._unseen.pop(name, None)
        return _gathered(parts, names, found)

    def _placed(self, rows: Float) -> list[_Row | None]:
        """Where each row is; of equal rows, where most of its neighbours are."""
        candidates = [self._places.get(_digest(row), []) for row in rows]
        counts = Counter(name for places in candidates for name in {name for name, _ in places})
        return [max(places, key=lambda place: counts[place[0]], default=None) for places in candidates]

    def require_seen(self, left: Iterable[Float]) -> None:
        """StageError if a weight was neither asked for nor is among those that are `left` in float."""
        for weight in left:
            for rows in (weight, weight.T) if weight.ndim == 2 else ():
                seen = {name for place in self._placed(rows) if place is not None for name in place[:1]}
                self._unseen = {name: None for name in self._unseen if name not in seen}
        if self._unseen:
            raise StageError(
                f"The graph has no product or table with the values of {next(iter(self._unseen))!r}, which the "
                f"checkpoint has in codes ({len(self._unseen)} of {len(self._codes)} such weights): it would be "
                "rounded a second time.",
                "Please report it, with the model's config.json.",
            )


def require_exact(layer: Layer, decoded: Float) -> None:
    """StageError if the stored form of given codes does not stand for the layer's very weight."""
    if not np.array_equal(decoded, layer.weight):
        raise StageError(
            f"The codes that the checkpoint has for {layer.node.name!r} do not stand for its weight.",
            "Please report it, with the model's config.json.",
        )


def _digest(row: Float) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()


def _gathered(parts: list[Coded], names: list[str], places: list[_Row]) -> Coded:
    """The rows at `places`, in their order."""
    begins = dict(zip(names, np.cumsum([0, *(len(part.codes) for part in parts[:-1])]), strict=True))
    return stacked(parts).taken(np.array([begins[name] + row for name, row in places], np.int64))


def given_codes(context: StageContext) -> GivenCodes:
    """The codes of the model's checkpoint; none if it is not told of, or has none."""
    spec = context.models.get(MODEL)
    checkpoint = coded_checkpoint(spec.path, read_config(spec.path), spec.entry) if spec and spec.coded else None
    return GivenCodes({} if checkpoint is None else checkpoint.codes)
