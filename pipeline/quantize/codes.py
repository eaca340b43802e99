"""The arrays of a quantization plan: every weight encoded once, however many nodes read it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.core.errors import StageError
from pipeline.core.types import Json
from pipeline.formats.format import Arrays, Encoded, Entry, Known, Layer, NumberFormat
from pipeline.quantize.shards import Shards


class Codes:
    """`arrays`: those of all weights, named `<weight>.<part>`; in memory, or in `shards`, which may have some of a run
    that was killed. `noted`: of weights that were not encoded again, what was noted beside them."""

    def __init__(self, shards: Shards | None = None) -> None:
        self._shards, self._arrays = shards, Arrays()
        self._encoded: dict[str, tuple[tuple[str, str], str]] = {}
        self._parameters: dict[str, dict[str, Json]] = {}
        self.noted: list[Json] = []

    @property
    def arrays(self) -> Arrays:
        return self._arrays if self._shards is None else self._shards.arrays

    def encode(self, layer: Layer, form: NumberFormat, known: Known) -> Encoded:
        """The stored form of the layer's weight. StageError if another node has it in other codes."""
        name, node = layer.weight_name, str(layer.node.name)
        kind = (form.name, layer.op)
        self._recall(layer, kind)
        before, first = self._encoded.get(name, (None, ""))
        if before == kind:
            return self._known(name)
        fresh = form.encode(layer.op, layer.weight, known)
        if before is not None and not _same(self._known(name), fresh):
            raise StageError(
                f"The nodes {first!r} and {node!r} read one weight, {name!r}, which cannot be stored in two ways.",
                "Give both the same format with [scheme.overrides], or leave one out with --nodes-to-exclude.",
            )
        self._encoded[name], self._parameters[name] = (kind, node), fresh.parameters
        self.add(name, fresh.arrays, {"kind": kind, "parameters": fresh.parameters, "noted": known.noted()})
        return self._known(name)

    def add(self, name: str, arrays: Arrays, facts: Json = None) -> None:
        """Keep arrays by part."""
        named = {f"{name}.{part}": array for part, array in arrays.items()}
        if self._shards is None:
            self._arrays |= named
        else:
            self._shards.add(name, named, facts)

    def _recall(self, layer: Layer, kind: tuple[str, str]) -> None:
        """Take a weight that the shards have."""
        name = layer.weight_name
        facts = self._shards.facts(name) if self._shards is not None and name not in self._encoded else None
        if facts is not None and tuple(facts["kind"]) == kind:
            self._encoded[name], self._parameters[name] = (kind, str(layer.node.name)), facts["parameters"]
            self.noted.append(facts["noted"])

    def _known(self, name: str) -> Encoded:
        begin = f"{name}."
        parts = {key.removeprefix(begin): array for key, array in self.arrays.items() if key.rpartition(".")[0] == name}
        return Encoded(parts, self._parameters[name])


def _same(one: Encoded, other: Encoded) -> bool:
    return one.arrays.keys() == other.arrays.keys() and all(
        np.array_equal(array, other.arrays[part]) for part, array in one.arrays.items()
    )


def entry_of(layer: Layer, form: NumberFormat, encoded: Encoded, **more: Any) -> Entry:
    """The plan's entry of a layer; `more`: its other fields."""
    fields = {"parameters": encoded.parameters, **more}
    return Entry(
        node=str(layer.node.name),
        weight=layer.weight_name,
        op=layer.op,
        format=form.name,
        shape=layer.shape,
        **fields,
    )
