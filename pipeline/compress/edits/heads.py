"""Fewer heads in an attention."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from pipeline.compress.edits.base import Edit, keep_columns, keep_rows


class KeepHeads(Edit):
    """Keep the key-value heads `keep` (ascending indices) of the module `attention`, each with the `group` query
    heads that read it (1 unless queries are grouped).

    Rows of `query` (group * head_dim per kept head), `key` and `value` (head_dim), columns of `output`
    (group * head_dim). The attention's own counts are set too.
    """

    edit: Literal["keep_heads"] = "keep_heads"
    attention: str
    query: str
    key: str
    value: str
    output: str
    head_dim: Annotated[int, Field(gt=0)]
    group: Annotated[int, Field(gt=0)] = 1
    keep: tuple[int, ...]

    def apply(self, model: nn.Module) -> None:
        wide = self.group * self.head_dim
        keep_rows(model, self.query, self.keep, wide, "heads")
        keep_rows(model, self.key, self.keep, self.head_dim, "heads")
        keep_rows(model, self.value, self.keep, self.head_dim, "heads")
        keep_columns(model, self.output, self.keep, wide, "heads")
        heads = len(self.keep) * self.group
        counts = {
            "num_attention_heads": heads,
            "num_heads": heads,
            "n_heads": heads,
            "num_key_value_heads": len(self.keep),
            "all_head_size": heads * self.head_dim,
            "dim": heads * self.head_dim,
        }
        attention = model.get_submodule(self.attention)
        for name, value in counts.items():
            if hasattr(attention, name):
                setattr(attention, name, value)
