"""The commands that only look: targets, recipes, schemes, formats, what is in a bundle, what is in the store."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnx import ModelProto
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.bundle.graph import read_graphs
from pipeline.bundle.manifest import read_manifest
from pipeline.bundle.records import read_metadata
from pipeline.checks.breakdown import tensor_groups
from pipeline.config.loading import available, load_recipe, load_target
from pipeline.core.budgets import BUDGETS
from pipeline.core.errors import UsageError
from pipeline.core.store import Store, default_store
from pipeline.core.types import Scheme
from pipeline.formats import NUMBER_FORMATS
from pipeline.formats.format import TensorClass
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.files import GraphSpec
from pipeline.graph.operators import WEIGHT_INPUTS
from pipeline.quantize.schemes import SCHEMES

_CLASSES: dict[TensorClass, str] = {
    "linear": "products",
    "table": "tables",
    "conv": "convolutions",
    "lstm": "wide LSTMs",
    "other": "others",
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def list_targets(console: Console) -> None:
    """A block per target: device, recipe, budgets."""
    for name in available("targets"):
        target = load_target(name)
        console.print(Text(name, "bold").append(f"  {target.title}; default recipe {target.recipe}", "not bold"))
        table = Table("budget", "limit", "", "evidence", box=None, pad_edge=False, padding=(0, 2))
        for metric, budget in target.budgets.items():
            kind = BUDGETS.get(metric)
            needed = "required" if budget.required else "optional"
            table.add_row(metric, f"{kind.direction} {budget.limit:g} {kind.unit}", needed, ", ".join(budget.evidence))
        console.print(table)
        console.print()


def list_budgets(console: Console) -> None:
    """A row per metric that a target can limit; of an installed one that cannot be used, why."""
    table = Table("budget", "limit", "what it is", box=None, pad_edge=False, padding=(0, 2))
    for name, metric in BUDGETS.survey():
        if isinstance(metric, UsageError):
            table.add_row(name, "-", Text(metric.message))
        else:
            table.add_row(name, f"{metric.direction} {metric.unit}", metric.meaning)
    console.print(table)


def list_recipes(console: Console) -> None:
    """A row per recipe: its passes and its scheme."""
    table = Table("recipe", "passes", "scheme", "what it does", box=None, pad_edge=False, padding=(0, 2))
    for name in available("recipes"):
        recipe = load_recipe(name)
        scheme = recipe.scheme if isinstance(recipe.scheme, str) else str(recipe.scheme.get("base"))
        table.add_row(name, ", ".join(str(entry.get("pass")) for entry in recipe.passes) or "-", scheme, recipe.title)
    console.print(table)


def list_schemes(console: Console) -> None:
    """A row per scheme: what becomes of weights, inputs of products, and embeddings; of an installed one that cannot be
    used, why."""
    table = Table("scheme", "weights", "activations", "embeddings", box=None, pad_edge=False, padding=(0, 2))
    for name, scheme in SCHEMES.survey():
        if isinstance(scheme, UsageError):
            table.add_row(name, Text(scheme.message))
            continue
        formats = SchemeFormats(scheme)
        linear, embedding = formats.classes["linear"], formats.classes["table"]
        inputs, products = formats.rounded_inputs, linear.details().get("Products")
        inputs = f"{inputs}; products: {products}" if products else inputs
        table.add_row(name, linear.words("linear"), inputs, embedding.words("table"))
    console.print(table)


def list_formats(console: Console) -> None:
    """A row per number format, as a recipe's [scheme.overrides] names it: what it takes and what it does; of an
    installed one that cannot be used, why."""
    table = Table("format", "takes", "what it is", box=None, pad_edge=False, padding=(0, 2))
    for name, form in NUMBER_FORMATS.survey():
        if isinstance(form, UsageError):
            table.add_row(name, "-", Text(form.message))
            continue
        calibrated = form(Scheme(name="any", activations="static"))
        taken = [words for op, words in _CLASSES.items() if form.code_bits == 32 or not calibrated.refuses(op)]
        table.add_row(name, ", ".join(taken), form.meaning)
    console.print(table)


def inspect_bundle(bundle: Path, console: Console) -> None:
    """Files (verified), and of each graph inputs and outputs, operators, node names and stored bytes."""
    manifest = read_manifest(bundle)
    metadata = read_metadata(bundle)
    models = read_graphs(bundle)
    provenance = manifest["provenance"]
    made = f" for {provenance['target']}, recipe {provenance['recipe']}, scheme {metadata.scheme.name}"
    console.print(Text.assemble((provenance["model"], "bold"), made, f", task {metadata.task}"))
    needed = metadata.requires
    console.print(f"needs ONNX Runtime {needed.onnxruntime} or newer ({needed.reason})")
    console.print(_files(manifest["files"]))
    for graph in metadata.graphs:
        _show_graph(graph, models[graph.name], console)


def _show_graph(graph: GraphSpec, model: ModelProto, console: Console) -> None:
    console.print(f"graph {graph.file}", style="bold")
    for side, entries in (("input", graph.inputs), ("output", graph.outputs)):
        for entry in entries:
            fed = f" <- {graph.feeds[entry.name]}" if side == "input" and entry.name in graph.feeds else ""
            console.print(f"  {side:<7} {entry.name}: {entry.dtype} {_shape(entry.shape)}{fed}", markup=False)
    console.print(_tensors(model))
    operators = Counter(node.op_type for node in model.graph.node)
    console.print("operators: " + ", ".join(f"{name} x{count}" for name, count in operators.most_common()))
    names = dict.fromkeys(
        "/".join(node.name.split("/")[:2]) for node in model.graph.node if node.op_type in WEIGHT_INPUTS
    )
    console.print(
        f"names for --nodes-to-exclude: {', '.join(list(names)[:4])}, ... ({len(names)} in all)", markup=False
    )


def _shape(shape: Sequence[int | str]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"


def _files(files: dict[str, dict[str, Any]]) -> Table:
    table = Table("file", "bytes", "sha256", box=None, pad_edge=False, padding=(0, 2))
    for name, entry in files.items():
        table.add_row(name, f"{entry['bytes']:,}", entry["sha256"][:16])
    return table


def _tensors(model: ModelProto) -> Table:
    table = Table("stored tensors", "format", "MB", "share", box=None, pad_edge=False, padding=(0, 2))
    for group in tensor_groups(model):
        table.add_row(group.name, group.dtype, f"{group.megabytes:.2f}", f"{group.share:.0%}")
    return table


def clean_store(max_size: str, store: Path | None, console: Console) -> None:
    """Drop entries until at most `max_size` are left, and say what was freed."""
    limit = parse_size(max_size)
    place = Store(store or default_store())
    removed, freed = place.clean(limit)
    left = sum(size for _, size, _ in place.entries())
    console.print(f"Removed {removed} results, {freed / 1e6:.1f} MB; {left / 1e6:.1f} MB are left in {place.root}.")


def parse_size(text: str) -> int:
    """`2GB` -> 2_000_000_000 (powers of 10); UsageError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size.", "For example: 0, 500MB, 2GB.")
    return int(float(match.group(1)) * _UNITS[match.group(2).upper()])
