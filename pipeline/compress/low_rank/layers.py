"""Which layers `low_rank` can factorize, and why it leaves the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from torch import nn

from pipeline.compress.low_rank.config import KINDS, Kind, LowRank
from pipeline.compress.shared.patterns import matches, require_matches
from pipeline.compress.shared.tied import other_names
from pipeline.core.report_types import Skipped

Layer = nn.Linear | nn.Conv2d | nn.Embedding
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TYPES: dict[Kind, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear,),
    "conv": _CONVOLUTIONS,
    "embedding": (nn.Embedding,),
}
_EXACT: dict[Kind, type[nn.Module]] = {"linear": nn.Linear, "conv": nn.Conv2d, "embedding": nn.Embedding}


@dataclass(frozen=True)
class Candidate:
    """A layer that can be factorized, if a rank makes it smaller."""

    name: str
    kind: Kind
    module: Layer


@dataclass(frozen=True)
class Places:
    """How many rows (tokens, pixels) one sample makes a layer read and give; 0 if it is never called. `between`: of a
    convolution's pixels once its stride is taken along the height only."""

    read: int = 0
    given: int = 0
    between: int = 0


def find_layers(model: nn.Module, config: LowRank) -> tuple[list[Candidate], list[Skipped]]:
    """The layers that `config` names and that can be factorized, and the ones that it names and cannot be, each with
    its reason. StageError for a pattern that matches no layer."""
    known = {name: kind for name, module in model.named_modules() if (kind := _kind(module)) is not None}
    patterns = [pattern for pattern in config.chosen if pattern not in KINDS]
    ranks = list(config.rank) if isinstance(config.rank, dict) else []
    for key, given in (("layers", patterns), ("ignore", config.ignore), ("rank", ranks)):
        require_matches("low_rank", key, given, known, "Linear, convolution or Embedding")
    named = {name: kind for name, kind in known.items() if kind in config.chosen or matches(name, patterns)}
    if ranks:
        named = {name: kind for name, kind in named.items() if matches(name, ranks)}
    others = other_names(model)
    found, skipped = [], []
    for name, kind in named.items():
        module = model.get_submodule(name)
        reason = _reason(name, kind, module, config, others)
        if reason:
            skipped.append(Skipped(name=name, reason=reason))
        elif isinstance(module, get_args(Layer)):
            found.append(Candidate(name, kind, module))
    return found, skipped


def _kind(module: nn.Module) -> Kind | None:
    return next((kind for kind, types in _TYPES.items() if isinstance(module, types)), None)


def _reason(name: str, kind: Kind, module: nn.Module, config: LowRank, others: Mapping[str, list[str]]) -> str:
    """Why a layer stays; empty if it need not."""
    if matches(name, config.ignore):
        return "ignore names it"
    if shared := others.get(f"{name}.weight"):
        # factors of a shared table would have to serve both of its readers, one of which multiplies by its transpose
        return f"its weight is shared with {shared[0].removesuffix('.weight')}"
    if kind not in config.by_kind:
        return f"method {' and '.join(config.method)} is not for {kind} layers"
    return _unfit(kind, module, config.by_kind[kind])


def _unfit(kind: Kind, module: nn.Module, method: str) -> str:
    """Why a module cannot be factorized by its method; empty if it can."""
    if type(module) is not _EXACT[kind]:
        return f"it is a {type(module).__name__}, not a plain {_EXACT[kind].__name__}"
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        return f"a convolution in {module.groups} groups, whose channels are mixed too little to be factorized"
    if isinstance(module, nn.Conv2d) and method == "cp" and module.weight[0, 0].numel() == 1:
        return "its kernel is 1 x 1, which CP cannot split further; tucker2 would take its SVD"
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "it renormalizes its rows (max_norm)"
    return ""
