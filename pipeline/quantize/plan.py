"""What `quantize` decides, as plain data: which node gets which number format. `write` turns it into ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.core.artifact import Artifact
from pipeline.core.digest import pretty_json
from pipeline.core.report_types import TensorFormat
from pipeline.core.types import StrictModel
from pipeline.formats.format import Arrays, Entry
from pipeline.quantize.layers import LeftEntry
from pipeline.quantize.shards import Shards, read_shards


class TensorEntry(StrictModel):
    """An activation, or a constant, that is rounded to unsigned codes where it is made, for all its readers."""

    tensor: str
    scale: float
    zero_point: int
    bits: Literal[8, 16] = Field(default=8, exclude_if=lambda bits: bits == 8)


class QuantizationPlan(StrictModel):
    """The biases of `convolutions` whose parameters say so are stored too, as `<node>.bias.codes` and
    `<node>.bias.scales`; of those that run in float, as `<node>.bias.values`, where rounding would move their means."""

    linears: tuple[Entry, ...] = ()
    tables: tuple[Entry, ...] = ()
    convolutions: tuple[Entry, ...] = ()
    others: tuple[Entry, ...] = ()
    tensors: tuple[TensorEntry, ...] = ()
    left_in_float: tuple[LeftEntry, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All weights that are rounded, in the order in which they are written."""
        return (*self.convolutions, *self.linears, *self.tables, *self.others)


PLAN = "plan.json"


def save_plan(folder: Path, plan: QuantizationPlan, shards: Shards) -> None:
    """Write `plan.json`, and in one file or several the arrays of stored weights, by name (`<weight>.codes`,
    `<weight>.scales`)."""
    shards.move(folder)
    (folder / PLAN).write_text(pretty_json(plan.model_dump(mode="json")), encoding="utf-8", newline="\n")


def read_plan(artifact: Artifact) -> tuple[QuantizationPlan, Arrays]:
    """What `save_plan` wrote."""
    return QuantizationPlan.model_validate(artifact.read_json(PLAN)), read_shards(artifact.path)


def stored_formats(plan: Artifact | None) -> tuple[TensorFormat, ...]:
    """How the quantization plan stores every weight; nothing without one, or of one that does not say it yet."""
    entries = plan.metadata.get("formats", ()) if plan is not None else ()
    return tuple(TensorFormat.model_validate(entry) for entry in entries)
