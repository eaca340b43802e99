"""The JSON files of a bundle as typed records; whoever made the bundle may have written anything into them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import onnxruntime as ort
from pydantic import Field

from pipeline.bundle.layout import MAPPED
from pipeline.config.target import Layout, Runtime
from pipeline.core.documents import DocumentError, read_json
from pipeline.core.errors import UsageError
from pipeline.core.model_spec import DecoderSpec, LanguageSpec
from pipeline.core.types import Json, Scheme, StrictModel
from pipeline.graph.files import Graphs, GraphSpec
from pipeline.runtime.releases import Requirements, parse_release, spell

METADATA = "metadata.json"
ORT = "ort"
"""The folder of the graphs in ONNX Runtime's own format."""
ORT_FOLDERS = ("arm64", "web")
"""Those in it, for whose CPUs they are optimized: Arm, and WebAssembly and all others."""
Record = TypeVar("Record", bound=StrictModel)


class Engine(StrictModel):
    """How the app must set up its session."""

    engine: str
    providers: tuple[str, ...]
    threads: int
    session_config: dict[str, str]


class Metadata(StrictModel):
    """`metadata.json`: what an app must know of the model. `graphs`: in the order in which it runs them; the golden
    samples are inputs of the model and outputs of all graphs. `npu`: the SoCs for which `qnn/` has the graph compiled.
    `ort`: whether `ort/` has them too. `states`: of a
    streaming model, input -> the output that is its value in the next step; they start at zero. `decoder`: how a text
    is begun, filled up and bounded; `language`: of a language model, the sizes of its cache and its special tokens."""

    model: str
    task: str
    scheme: Scheme
    graphs: Annotated[tuple[GraphSpec, ...], Field(min_length=1)]
    layout: Layout
    ort: bool = Field(default=False, exclude_if=lambda ort: not ort)
    npu: Annotated[tuple[str, ...], Field(max_length=16)] = Field(default=(), exclude_if=lambda socs: not socs)
    requires: Requirements
    states: dict[str, str] = Field(default={})
    decoder: DecoderSpec | None = None
    language: LanguageSpec | None = None
    max_length: Annotated[int, Field(gt=0)] | None
    labels: dict[str, Json] | None
    preprocessing: tuple[str, ...]
    golden: str
    runtime: Engine

    def variants(self, bundle: Path) -> list[Graphs]:
        """The graphs in each of the layouts and formats that the bundle has."""
        folders = [bundle, bundle / MAPPED] if self.layout == "both" else [bundle]
        own = [Graphs(folder, self.graphs) for folder in folders]
        return own + [in_ort_format(own[0], name) for name in ORT_FOLDERS if self.ort]

    def session_runtime(self) -> Runtime:
        """The runtime that the bundle was made for, as its golden outputs were."""
        engine = self.runtime.model_dump(exclude={"engine"})
        return Runtime.from_data(engine, f"{METADATA} of the bundle")


def in_ort_format(graphs: Graphs, name: str) -> Graphs:
    """Where the same graphs lie for one of `ORT_FOLDERS`."""
    specs = (spec.model_copy(update={"file": f"{ORT}/{name}/{spec.name}.ort"}) for spec in graphs)
    return Graphs(graphs.folder, tuple(specs))


def read_record(kind: type[Record], bundle: Path, name: str) -> Record:
    """The record in a JSON file of the bundle; UsageError that names the file and all mistakes."""
    return kind.from_data(read_object(bundle, name), f"{name} of the bundle {bundle}")


def read_object(bundle: Path, name: str, what: str = "the bundle") -> dict[str, Json]:
    """The JSON object in a file of the bundle, or of another folder; UsageError if there is none."""
    try:
        data = read_json(bundle / name)
    except DocumentError as error:
        raise UsageError(f"{name} of {what} {bundle} {error}.", "Export it again.") from error
    if not isinstance(data, dict):
        raise UsageError(f"{name} of {what} {bundle} is no JSON object.", "Export it again.")
    return data


def read_metadata(bundle: Path) -> Metadata:
    """What the bundle's `metadata.json` says; UsageError if it cannot be read."""
    return read_record(Metadata, bundle, METADATA)


def bundle_graphs(bundle: Path) -> Graphs:
    """The bundle's graphs."""
    return Graphs(bundle, read_metadata(bundle).graphs)


def require_runtime(bundle: Path) -> None:
    """UsageError if the ONNX Runtime that is installed here cannot load the bundle's graphs."""
    needed, installed = read_metadata(bundle).requires, ort.__version__
    if parse_release(installed) < needed.release:
        raise UsageError(
            f"The bundle {bundle} needs ONNX Runtime {needed.onnxruntime} or newer ({needed.reason}); {installed} is "
            "installed.",
            f"Install a newer one, or export with --min-onnxruntime {spell(parse_release(installed))}.",
        )
