"""What a checkpoint of codes holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.numerics.affine import Float
from pipeline.numerics.coded import Coded


@dataclass(frozen=True)
class CodedCheckpoint:
    """`title`: what kind of checkpoint, for messages. `codes`: the weights that are codes, by name, `floats` the others
    (float32), each read when it is called for. `kinds`: how the codes are stored, with how many weights are so;
    `left_out`: what else the checkpoint wants to be rounded, and is not."""

    title: str
    codes: Mapping[str, Callable[[], Coded]]
    floats: Mapping[str, Callable[[], Float]]
    kinds: Mapping[str, int]
    left_out: str = ""

    @property
    def tensors(self) -> int:
        """How many weights it has."""
        return len(self.codes) + len(self.floats)

    def alike(self, modules: Sequence[str]) -> bool:
        """Whether the weights of modules have codes of one form, or none. Modules may lack the first parts of their
        names."""
        return len({self._form(f"{module}.weight") for module in modules}) == 1

    def _form(self, weight: str) -> tuple[object, ...] | None:
        name = next((name for name in self.codes if f".{name}".endswith(f".{weight}")), None)
        return None if name is None else self.codes[name]().form()

    def note(self) -> str:
        """For the report."""
        kinds = "; ".join(f"{count} x {kind}" for kind, count in self.kinds.items())
        return (
            f"The checkpoint is quantized already ({self.title}; {kinds}): these codes, scales and zero points are "
            "written as they are, and the rest follows the recipe. Float means the weights that the checkpoint stands "
            f"for.{self.left_out}"
        )
