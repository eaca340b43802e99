"""A graph in which some layers are rounded and all others are not, run on samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.core.types import silent
from pipeline.data.samples import Samples
from pipeline.formats.format import Layer
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.files import saved
from pipeline.quantize.conv import region_of
from pipeline.quantize.layers import read_layers
from pipeline.quantize.parts import Part
from pipeline.quantize.qdq_region import QdqRegion
from pipeline.quantize.quantize import Calibrated, decide
from pipeline.quantize.ruined import Damage, Stored
from pipeline.quantize.write import write

_TRIAL = "trial.onnx"


class Trial:
    """Trials of one graph. `found`: what calibration found of it."""

    def __init__(self, part: Part, found: Calibrated) -> None:
        self._part, self._found = part, found

    def outputs(self, layers: Sequence[Layer], formats: SchemeFormats, rows: Samples) -> Iterator[NDArray[Any]]:
        """The first output for every sample with `layers` rounded."""
        names = {layer.node.name for layer in layers}
        model = self._part.load()
        every, _ = read_layers(self._part.context.inputs["layers"], model.graph)
        chosen = [layer for layer in every if layer.node.name in names]
        planned = self.planned(model, chosen, region_of(model.graph, chosen, formats), formats, rows)
        yield from (outputs[0] for outputs in planned)

    def planned(
        self,
        model: ir.Model,
        layers: list[Layer],
        region: QdqRegion,
        formats: SchemeFormats,
        rows: Samples,
        stored: Sequence[Stored] = (),
        damage: Damage | None = None,
    ) -> Iterator[list[NDArray[Any]]]:
        """All outputs for every sample of a fresh copy of the graph, written as `decide` says. `damage`: in place of
        what calibration found."""
        found = self._found if damage is None else replace(self._found, damage=damage)
        write(model, *decide(layers, [], region, formats, found, silent, stored))
        with saved(model, self._part.context.out / _TRIAL) as trial:
            yield from self.every(trial, rows)

    def exact(self, rows: Samples) -> Iterator[NDArray[Any]]:
        """That of the float graph."""
        return self.run(self._part.file, rows)

    def run(self, path: Path, rows: Samples) -> Iterator[NDArray[Any]]:
        """That of the graph in a file."""
        session = self._part.session(path)
        output = session.get_outputs()[0].name
        for row in rows.select([entry.name for entry in session.get_inputs()]):
            yield session.run([output], row)[0]

    def every(self, path: Path, rows: Samples) -> Iterator[list[NDArray[Any]]]:
        """All outputs of the graph in a file."""
        session = self._part.session(path)
        for row in rows.select([entry.name for entry in session.get_inputs()]):
            yield session.run(None, row)
