"""The arrays of a quantization plan: every weight encoded once, however many nodes read it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.core.errors import StageError
from pipeline.formats.format import Arrays, Encoded, Entry, Known, Layer, NumberFormat


class Codes:
    """`arrays`: those of all weights, named `<weight>.<part>`."""

    def __init__(self) -> None:
        self.arrays: Arrays = {}
        self._encoded: dict[str, tuple[tuple[str, str], str, Encoded]] = {}

    def encode(self, layer: Layer, form: NumberFormat, known: Known) -> Encoded:
        """The stored form of the layer's weight. StageError if another node has it in other codes."""
        name, node = layer.weight_name, str(layer.node.name)
        kind = (form.name, layer.op)
        before, first, encoded = self._encoded.get(name, (None, "", None))
        if before == kind and encoded is not None:
            return encoded
        fresh = form.encode(layer.op, layer.weight, known)
        if encoded is not None and not _same(encoded, fresh):
            raise StageError(
                f"The nodes {first!r} and {node!r} read one weight, {name!r}, which cannot be stored in two ways.",
                "Give both the same format with [scheme.overrides], or leave one out with --nodes-to-exclude.",
            )
        self._encoded[name] = (kind, node, fresh)
        self.arrays |= {f"{name}.{part}": array for part, array in fresh.arrays.items()}
        return fresh


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
        shape=layer.weight.shape,
        **fields,
    )
