"""What a runner is, and what all of them share: requests to the worker and its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError
from pipeline.core.memory import says_out_of_memory
from pipeline.core.report_types import HostInfo
from pipeline.core.types import Evidence, Json
from pipeline.devices.worker import Part, Request, Subject
from pipeline.graph.files import Graphs

Kind: TypeAlias = Literal["times", "memory", "answers", "profile"]
"""Kinds of figures that not every runner can give."""
LOAD_SECONDS = 300.0  # allowance for starting, loading and warming up


class Runner(Protocol):
    """A machine on which the sessions of a bundle run. `evidence`: what a figure that was measured there counts as.

    It may also have `lacks`, the kinds of figures that it cannot give (`Kind`) with the reason of each in words;
    `instead`, the runner that gives those; `tiers`, by name the runners of CPUs on which a few answers are compared,
    the target's own first; `at(place, target)`, the runner of a place that the user names behind a colon
    (`ssh:pi@board`); and `remark`, what a reader of its figures must know, asked for after the last of them.
    """

    @property
    def evidence(self) -> Evidence: ...

    def run(self, request: Request, timeout_s: float) -> dict[str, Json]:
        """The result of `worker.py`, started anew for this request.

        The files that the request names are files of this machine: a runner elsewhere takes copies of those that are
        read (a model may have a `.data` file beside it), and brings back those that are written.
        UsageError if the worker cannot take the request; StageError if ONNX Runtime refuses the model, the worker dies,
        or it takes longer than `timeout_s` seconds.
        """

    def info(self) -> HostInfo:
        """The machine, for the report."""


def lacking(runner: Runner, kind: Kind) -> str:
    """Why the runner gives no figures of a kind; empty where it does."""
    lacks: Mapping[str, str] = getattr(runner, "lacks", {})
    return lacks.get(kind, "")


def giving(runner: Runner, kind: Kind) -> Runner:
    """The runner, or the one that it names for figures of a kind that it cannot give."""
    other: Runner | None = getattr(runner, "instead", None)
    return other if other is not None and lacking(runner, kind) else runner


def subject_of(model: Path | Graphs, inputs: Path, runtime: Runtime) -> Subject:
    """The model, which may be an ONNX file, under the runtime. `inputs`: a file of `write_feed`."""
    first, *others = [model] if isinstance(model, Path) else model.files
    feeds = () if isinstance(model, Path) else (spec.feeds for spec in model.specs[1:])
    then = tuple(Part(str(file), feed) for file, feed in zip(others, feeds, strict=True))
    return Subject(str(first), str(inputs), runtime.threads, runtime.providers, runtime.session_entries, then)


def encode(request: Request) -> str:
    """The request as the worker reads it."""
    return json.dumps({"mode": request.mode, **asdict(request)})


def checked(request: Request, result: dict[str, Json]) -> dict[str, Json]:
    """The worker's result if it is none of its refusals, which are raised as errors (see `Runner.run`)."""
    if "error" in result:
        raise UsageError(result["error"], result["remedy"])
    if "refused" in result:
        failed = f"Measuring {request.mode} failed:"
        if says_out_of_memory(result["refused"]):
            raise StageError(f"{failed} out of memory.")
        raise StageError(f"{failed} {result['refused']}", result["remedy"])
    return result
