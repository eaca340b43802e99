"""Which layers `sparsify` takes, and why every other weight stays dense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from pipeline.compress.shared.matrices import Multiplier
from pipeline.compress.shared.patterns import matches, require_matches
from pipeline.compress.shared.tied import other_names
from pipeline.compress.sparsify.config import Sparsify
from pipeline.core.errors import StageError
from pipeline.core.report_types import Skipped
from pipeline.numerics.sparse import Pattern

UNREACHED = "calibration samples never reach it"


def sparse_layers(model: nn.Module, config: Sparsify) -> tuple[dict[str, Multiplier], list[Skipped]]:
    """The Linear and Conv2d layers to sparsify by name, and the weights that stay dense, each with its reason.

    StageError if there are none, a name pattern matches none, or rows do not divide into the N:M pattern's M.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    if not found:
        raise StageError(
            f"sparsify: {type(model).__name__} has no Linear or Conv2d weights.",
            "Remove the sparsify pass from the recipe.",
        )
    for key in ("layers", "ignore"):
        require_matches("sparsify", key, getattr(config, key), found, "Linear or Conv2d layer")
    weights, names = _weights(model), other_names(model)
    known = {name for name, _, _ in weights}
    taken, skipped = {}, []
    for name, parameter, owner in weights:
        layer = name.removesuffix(".weight")
        reason = _reason(
            layer, owner, [other for other in names[name] if other in known], config, name.endswith("weight")
        )
        if reason:
            skipped.append(Skipped(name=name, size=parameter.numel(), reason=reason))
        elif isinstance(owner, (nn.Linear, nn.Conv2d)):
            taken[layer] = owner
    if not taken:
        raise StageError(
            f"sparsify: layers and ignore leave none of the {len(found)} Linear and Conv2d layers.",
            f"Widen layers or narrow ignore; names look like {_examples(found)}.",
        )
    if config.n_of_m:
        _require_whole(taken, config.n_of_m)
    return taken, skipped


def unreached(name: str, module: Multiplier) -> Skipped:
    """A layer whose inputs no calibration sample shows."""
    return Skipped(name=f"{name}.weight", size=module.weight.numel(), reason=UNREACHED)


def summary(name: str, module: Multiplier, damping: float) -> dict[str, Any]:
    """What the report says of a layer that was made sparse."""
    values = module.weight.numel()
    zeros = values - int(module.weight.count_nonzero())
    return {
        "layer": name,
        "kind": "Linear" if isinstance(module, nn.Linear) else "Conv2d",
        "values": values,
        "zeros": zeros,
        "sparsity": round(zeros / values, 6),
        **({"damping": damping} if damping else {}),
    }


def _weights(model: nn.Module) -> list[tuple[str, nn.Parameter, nn.Module]]:
    """Every parameter of two or more dimensions under each of its names, and the module that has it."""
    return [
        (f"{place}.{name}" if place else name, parameter, module)
        for place, module in model.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dim() > 1
    ]


def _reason(layer: str, owner: nn.Module, others: Sequence[str], config: Sparsify, weight: bool) -> str:
    """Why this weight stays dense; empty if it does not."""
    if isinstance(owner, nn.Embedding):
        return "an embedding: its rows are looked up, not multiplied"
    if not isinstance(owner, (nn.Linear, nn.Conv2d)) or not weight:
        return f"sparsify takes the weights of Linear and Conv2d, not those of {type(owner).__name__}"
    if others:
        return f"it is the same tensor as {others[0]}"
    if matches(layer, config.ignore):
        return "ignore names it"
    return "" if matches(layer, config.layers) else "layers does not name it"


def _examples(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:3])


def _require_whole(taken: Mapping[str, Multiplier], pattern: Pattern) -> None:
    columns = {name: module.weight[0].numel() for name, module in taken.items()}
    odd = [name for name, count in columns.items() if count % pattern.m]
    if odd:
        listed = ", ".join(f'"{name}"' for name in odd)
        raise StageError(
            f"sparsify: the rows of {odd[0]!r} have {columns[odd[0]]} weights, which do not divide into groups of "
            f"{pattern.m} for {pattern.n}:{pattern.m}{f' (and {len(odd) - 1} more)' if odd[1:] else ''}.",
            f"Leave them dense with ignore = [{listed}], or use sparsity instead of pattern.",
        )
