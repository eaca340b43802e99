"""How a float model answers, as the stage `probe` (see checks/probe.py) found by running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from pipeline.core.artifact import Artifact
from pipeline.core.types import Json, StrictModel
from pipeline.tasks.output_kind import OutputKind
from pipeline.tasks.registry import OUTPUTS

PROBE = "probe"
"""The stage, and its role among the inputs of those that go by it."""


class Behaviour(StrictModel):
    """`family`: what the model puts out. `batch`: whether samples can run together (`fixed`: the graph takes one), and
    whether then each gets the answer that it gets alone (`unknown`: no two samples could be tried together). `padding`:
    whether padding that the mask hides changes an answer (`none`: there is no mask, or nothing to pad). `judged` and
    `others`: the graph's outputs that accuracy is measured on, and those that it is not; `head`: how the judged ones
    are decoded."""

    family: str
    batch: Literal["free", "fixed", "dependent", "unknown"]
    padding: Literal["harmless", "changes", "none"]
    judged: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    head: dict[str, Json] = Field(default={})

    @property
    def kind(self) -> OutputKind:
        """What the model puts out, of the outputs that it has."""
        return OUTPUTS.get(self.family).bound(self.judged, self.head)

    @property
    def independent(self) -> bool:
        return self.batch not in ("dependent", "unknown")

    def notes(self, by_metric: bool = False) -> list[str]:
        """What a reader of the report must know of it. `by_metric`: a metric of the user's, which sees all outputs,
        decides the drop."""
        found = [] if by_metric else [f"Accuracy compares {OUTPUTS.get(self.family).words}."]
        if self.others and not by_metric and not OUTPUTS.get(self.family).self_labelled:
            found.append(
                f"Accuracy is measured on {', '.join(self.judged)}; the other outputs ({', '.join(self.others)}) are "
                "not judged."
            )
        if self.batch == "dependent":
            found.append(
                "The float model's answer to a sample depends on the other samples of its batch: accuracy and "
                "calibration run one sample at a time, and nothing is said of batches."
            )
        if self.batch == "unknown":
            found.append(
                "No two samples could be run together, so that nobody knows whether answers depend on the rest of a "
                "batch: accuracy and calibration run one sample at a time."
            )
        if self.batch == "fixed":
            found.append(
                "The batch axis of an input is fixed or not its first: accuracy is measured one sample at a time only."
            )
        if self.padding == "changes" and self.batch == "free":
            found.append(
                "Padding changes the float model's answers although the mask hides it: batches were made of samples "
                "of one length."
            )
        return found


def behaviour_in(inputs: Mapping[str, Artifact]) -> Behaviour:
    """What the stage `probe` found."""
    return Behaviour.model_validate(inputs[PROBE].metadata)


def independent(inputs: Mapping[str, Artifact]) -> bool:
    """May samples run together? Where nothing was probed, no graph is known to mind."""
    return PROBE not in inputs or behaviour_in(inputs).independent


def may_pad(inputs: Mapping[str, Artifact]) -> bool:
    """May samples of different lengths run together, padded?"""
    return independent(inputs) and (PROBE not in inputs or behaviour_in(inputs).padding != "changes")
