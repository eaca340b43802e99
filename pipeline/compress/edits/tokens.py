"""A smaller vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from pipeline.compress.edits.base import Edit, keep_rows
from pipeline.compress.prune.tokens.rewrite import new_ids, renumbered
from pipeline.core.errors import StageError

SIZE = "vocab_size"


class KeepTokens(Edit):
    """Keep the tokens `keep` (ascending ids): rows of every Embedding of `tables` and of every Linear of `heads`, tied
    ones still tied. `config`: the keys of the model's config that give the size of the vocabulary or name special
    tokens."""

    edit: Literal["keep_tokens"] = "keep_tokens"
    tables: tuple[str, ...]
    heads: tuple[str, ...] = ()
    keep: tuple[int, ...]
    config: tuple[str, ...] = ()

    def apply(self, model: nn.Module) -> None:
        new = new_ids(self.keep)
        tied = {head: self._tied_to(model, head) for head in self.heads}
        moved = {name: _keep_table(model, name, self.keep, new) for name in self.tables}
        for head, table in tied.items():
            keep_rows(model, head, self.keep, 1, "tokens")
            if table is not None:
                model.get_submodule(head).weight = moved[table].weight
        self._require_padding_stays(model, new)
        for key in self.config:
            value = getattr(model.config, key)
            setattr(model.config, key, len(new) if key == SIZE else renumbered(value, new))

    def _tied_to(self, model: nn.Module, head: str) -> str | None:
        weight = model.get_submodule(head).weight
        return next((name for name in self.tables if model.get_submodule(name).weight is weight), None)

    def _require_padding_stays(self, model: nn.Module, new: dict[int, int]) -> None:
        """RoBERTa and its kin count positions from the padding token's id: their table of positions leaves it out."""
        for name, module in model.named_modules():
            padding = module.padding_idx if isinstance(module, nn.Embedding) and name not in self.tables else None
            if padding is not None and new.get(padding) != padding:
                raise StageError(
                    f"prune: {type(model).__name__} counts positions from the id {padding} of its padding token, "
                    "which a smaller vocabulary would change.",
                    "Remove the pass from the recipe.",
                )


def _keep_table(model: nn.Module, name: str, keep: Sequence[int], new: dict[int, int]) -> nn.Embedding:
    try:
        table = model.get_submodule(name)
    except AttributeError as error:
        raise StageError(f"The edits name {name!r}, which the model does not have.") from error
    if not isinstance(table, nn.Embedding):
        raise StageError(f"The edits name {name!r} as an Embedding, but it is a {type(table).__name__}.")
    if not keep or list(keep) != sorted(set(keep)) or keep[-1] >= table.num_embeddings:
        raise StageError(f"The edit of {name!r} keeps {len(keep)} tokens that do not fit its {table.num_embeddings}.")
    padding = None if table.padding_idx is None else new.get(table.padding_idx)
    smaller = nn.Embedding(len(keep), table.embedding_dim, padding_idx=padding, dtype=table.weight.dtype)
    smaller.weight = nn.Parameter(table.weight[torch.tensor(keep)].detach().clone())
    model.set_submodule(name, smaller)
    return smaller
