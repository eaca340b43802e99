"""Which recorded edits a Hugging Face config can express, so that transformers itself could build the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from pipeline.compress.edits.renumber import renumber_edits


def ffn_key(config: Any) -> str | None:
    """What a config calls the FFN's neurons: BERT, ViT and Llama `intermediate_size`, DistilBERT `hidden_dim`."""
    return next(
        (key for key in ("intermediate_size", "hidden_dim") if isinstance(getattr(config, key, None), int)), None
    )


def update_config(model: nn.Module, edits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Set what the model's config can say of the edits in force, and return it by key.

    A config holds one number for all layers: edits that leave layers unlike each other, or that skip some, are
    not expressed. Nor are fewer heads where the architecture derives the head size from their number (BERT).
    """
    config = getattr(model, "config", None)
    if config is None:
        return {}
    edits = renumber_edits(edits)
    values = _configured(config, edits) | _neurons(config, edits) | _heads(model, config, edits)
    for key, value in values.items():
        setattr(config, key, value)
    return values


def _configured(config: Any, edits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What edits have set themselves, since some models read it at every call."""
    keys = {key for edit in edits for key in edit.get("config", ())}
    return {key: getattr(config, key) for key in sorted(keys)}


def _neurons(config: Any, edits: Sequence[dict[str, Any]]) -> dict[str, int]:
    latest = {edit["contract"]: edit for edit in edits if edit["edit"] == "keep_neurons"}
    key, kept = ffn_key(config), {len(edit["keep"]) for edit in latest.values()}
    return {key: kept.pop()} if key and len(kept) == 1 and _covers(config, latest) else {}


def _heads(model: nn.Module, config: Any, edits: Sequence[dict[str, Any]]) -> dict[str, int]:
    latest = {edit["attention"]: edit for edit in edits if edit["edit"] == "keep_heads"}
    shapes = {(len(edit["keep"]), edit["group"], edit["head_dim"]) for edit in latest.values()}
    # Attention modules with a `head_dim` take it from the config if it is there; the others divide by the heads.
    if len(shapes) != 1 or not _covers(config, latest) or not all(_own_head_dim(model, name) for name in latest):
        return {}
    heads, group, head_dim = shapes.pop()
    values = {"num_attention_heads": heads * group, "head_dim": head_dim}
    return values | ({"num_key_value_heads": heads} if hasattr(config, "num_key_value_heads") else {})


def _own_head_dim(model: nn.Module, name: str) -> bool:
    return hasattr(model.get_submodule(name), "head_dim")


def _covers(config: Any, latest: dict[str, Any]) -> bool:
    return len(latest) == getattr(config, "num_hidden_layers", None)
