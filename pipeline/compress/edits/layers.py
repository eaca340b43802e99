"""Fewer blocks in a stack of alike ones."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from pipeline.compress.edits.base import Edit
from pipeline.core.errors import StageError

_POSITIONS = ("layer_idx", "layer_id", "layer_number")
"""What modules call their block's place in the stack, which for example finds their part of a key-value cache."""


class KeepLayers(Edit):
    """Keep the blocks `keep` (ascending indices) of the ModuleList or Sequential `stack`.

    `config`: the keys of the model's config that count the blocks, or list something for each.
    """

    edit: Literal["keep_layers"] = "keep_layers"
    stack: str
    keep: tuple[int, ...]
    config: tuple[str, ...] = ()

    def apply(self, model: nn.Module) -> None:
        blocks = self._blocks(model)
        model.set_submodule(self.stack, type(blocks)(*self._kept(blocks)))
        config = getattr(model, "config", None)
        for key in self.config:
            setattr(config, key, self._shortened(getattr(config, key)))

    def _blocks(self, model: nn.Module) -> nn.ModuleList | nn.Sequential:
        try:
            blocks = model.get_submodule(self.stack)
        except AttributeError as error:
            raise StageError(f"The edits name {self.stack!r}, which the model does not have.") from error
        if not isinstance(blocks, (nn.ModuleList, nn.Sequential)):
            raise StageError(f"The edits name {self.stack!r} as a stack, but it is a {type(blocks).__name__}.")
        if not self.keep or list(self.keep) != sorted(set(self.keep)) or self.keep[-1] >= len(blocks):
            raise StageError(f"The edit of {self.stack!r} keeps blocks that do not fit its {len(blocks)}.")
        return blocks

    def _kept(self, blocks: nn.ModuleList | nn.Sequential) -> tuple[Any, ...]:
        """The blocks that stay, told their new places, as the constructor of their container takes them."""
        kept = [blocks[index] for index in self.keep]
        for place, (block, index) in enumerate(zip(kept, self.keep, strict=True)):
            for module in block.modules():
                for name in _POSITIONS:
                    if isinstance(getattr(module, name, None), int):
                        setattr(module, name, getattr(module, name) - index + place)
        return tuple(kept) if isinstance(blocks, nn.Sequential) else (kept,)

    def _shortened(self, value: Any) -> Any:
        return [value[index] for index in self.keep] if isinstance(value, list) else len(self.keep)
