"""How a bundle's graphs lie in files: with their weights inside, in a file beside them, or both ways."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.target import Layout
from pipeline.graph.files import Graphs, GraphSpec, load_model, save_single

MAPPED = "mapped"
"""The folder of the graphs with their weights beside them, in a bundle that has both."""
LARGEST_SINGLE = 2_000_000_000
"""Bytes. A file in the protobuf format cannot be larger than 2 GiB, and what surrounds the weights needs room too."""


def write_graphs(graphs: Graphs, out: Path, layout: Layout) -> tuple[Layout, list[str]]:
    """Put the graphs into the bundle `out`.

    Returns:
        The layout that the bundle has, and a note if that is not the one asked for: weights of more than
        `LARGEST_SINGLE` bytes fit into no single file.
    """
    large = [graph.file for graph in graphs if _bytes(graph, graphs.folder) > LARGEST_SINGLE]
    notes = [] if layout == "mapped" or not large else [_too_large(large)]
    layout = "mapped" if large else layout
    if layout != "mapped":
        for graph in graphs:
            save_single(load_model(graphs.folder / graph.file), out / graph.file)
    if layout != "single":
        folder = out / MAPPED if layout == "both" else out
        folder.mkdir(exist_ok=True)
        for file in (file for graph in graphs for file in graph.files(graphs.folder)):
            shutil.copyfile(file, folder / file.name)
    return layout, notes


def _bytes(graph: GraphSpec, folder: Path) -> int:
    return sum(file.stat().st_size for file in graph.files(folder))


def _too_large(files: Sequence[str]) -> str:
    return (
        f"The weights of {', '.join(files)} are in a file beside it: over {LARGEST_SINGLE:,} bytes fit into no single "
        ".onnx file, so that apps cannot load it from bytes."
    )
