"""How a bundle's graphs lie in files: with their weights inside, in a file beside them, or both ways."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.target import Layout
from pipeline.core.errors import StageError
from pipeline.graph.files import Graphs, GraphSpec, load_model, save_single

MAPPED = "mapped"
"""The folder of the graphs with their weights beside them, in a bundle that has both."""
_NAMED = "{}.onnx"
LARGEST_SINGLE = 2_000_000_000
"""Bytes. A file in the protobuf format cannot be larger than 2 GiB, and what surrounds the weights needs room too."""


def write_graphs(graphs: Graphs, out: Path, layout: Layout, named: str = _NAMED) -> tuple[Layout, Graphs, list[str]]:
    """Put the graphs into the bundle `out`. `named`: the file of one, with `{}` for its name.

    Returns:
        The layout that the bundle has, the graphs in it, and a note if the layout is not the one asked for: weights of
        more than `LARGEST_SINGLE` bytes fit into no single file.

    Raises:
        StageError: If a client looks for a single file, and the weights do not fit into one.
    """
    large = [graph.file for graph in graphs if _bytes(graph, graphs.folder) > LARGEST_SINGLE]
    if large and named != _NAMED:
        raise StageError(_too_large(large), "Export with --layout mapped.")
    placed = Graphs(out, tuple(one.model_copy(update={"file": named.format(one.name)}) for one in graphs))
    notes = [] if layout == "mapped" or not large else [_too_large(large)]
    layout = "mapped" if large else layout
    if layout != "mapped":
        for file, new in zip(graphs.files, placed.files, strict=True):
            new.parent.mkdir(parents=True, exist_ok=True)
            save_single(load_model(file), new)
    if layout in ("mapped", "both"):
        folder = out / MAPPED if layout == "both" else out
        folder.mkdir(exist_ok=True)
        for file in (file for graph in graphs for file in graph.files(graphs.folder)):
            shutil.copyfile(file, folder / file.name)
    return layout, placed, notes


def _bytes(graph: GraphSpec, folder: Path) -> int:
    return sum(file.stat().st_size for file in graph.files(folder))


def _too_large(files: Sequence[str]) -> str:
    return (
        f"The weights of {', '.join(files)} are in a file beside it: over {LARGEST_SINGLE:,} bytes fit into no single "
        ".onnx file, so that apps cannot load it from bytes."
    )
