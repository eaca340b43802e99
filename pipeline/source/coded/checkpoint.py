"""A checkpoint of codes: what it is told by, what it holds, and the float weights that it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.numerics.affine import Float
from pipeline.numerics.coded import Coded
from pipeline.source.coded.awq import awq_modules
from pipeline.source.coded.compressed_tensors import compressed_modules
from pipeline.source.coded.gguf import gguf_tensors
from pipeline.source.coded.gptq import gptq_modules
from pipeline.source.coded.module import CodedModule
from pipeline.source.coded.tensors import Tensors
from pipeline.source.model_config import QUANTIZATION

GGUF = ".gguf"
_METHODS: dict[str, tuple[str, Callable[[Tensors, Mapping[str, Any]], Iterator[CodedModule]]]] = {
    "gptq": ("GPTQ", gptq_modules),
    "awq": ("AWQ", awq_modules),
    "compressed-tensors": ("compressed-tensors", compressed_modules),
}


@dataclass(frozen=True)
class CodedCheckpoint:
    """`title`: what kind of checkpoint, for messages. `codes`: the weights that are codes, by name, `floats` the others
    (float32), each read when it is called for. `kinds`: how the codes are stored, with how many weights are so."""

    title: str
    codes: Mapping[str, Callable[[], Coded]]
    floats: Mapping[str, Callable[[], Float]]
    kinds: Mapping[str, int]

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
            "for."
        )


def coded_checkpoint(folder: Path, config: Mapping[str, Any], file: str = "") -> CodedCheckpoint | None:
    """What the vetted `folder` holds, whose config.json has `config`; None if its weights are no codes.

    Args:
        folder: Where config.json and the tokenizer are.
        config: What config.json says.
        file: The path of a GGUF file; empty for the folder's safetensors.

    Raises:
        UsageError: Its codes are of a kind that is not read, or its tensors contradict each other.
    """
    if file:
        return _of_gguf(Path(file))
    settings = config.get(QUANTIZATION)
    if not settings:
        return None
    said = settings.get("quant_method") if isinstance(settings, dict) else None
    method = said if isinstance(said, str) else None
    if method not in _METHODS:
        raise UsageError(
            f"The weights of {folder.name!r} are quantized already ({method or f'{QUANTIZATION} in config.json'}), in "
            f"a form that is not read; {', '.join(_METHODS)} and GGUF are.",
            "Give one of these, or the checkpoint that it was made from, in float32, float16 or bfloat16.",
        )
    title, modules = _METHODS[method]
    return _of_modules(title, Tensors.of(folder), modules, settings)


def _of_modules(
    title: str,
    tensors: Tensors,
    modules: Callable[[Tensors, Mapping[str, Any]], Iterator[CodedModule]],
    settings: Mapping[str, Any],
) -> CodedCheckpoint:
    found = list(modules(tensors, settings))
    if not found:
        raise UsageError(
            f"{tensors.folder.name!r} says that it is quantized ({title}), and has no tensors of codes.",
            "Download or copy it again.",
        )
    used = {name for module in found for name in module.tensors}
    floats = {name: _reading(tensors, name) for name in tensors.stored if name not in used}
    kinds = Counter(f"{module.bits} bits in groups of {module.group}" for module in found)
    return CodedCheckpoint(title, {module.name: module.read for module in found}, floats, kinds)


def _reading(tensors: Tensors, name: str) -> Callable[[], Float]:
    return lambda: tensors.read(name).astype("float32")


def _of_gguf(path: Path) -> CodedCheckpoint:
    tensors = gguf_tensors(path)
    kinds = Counter(tensor.kind for tensor in tensors if tensor.coded)
    if not kinds:
        raise UsageError(f"{path.name!r} holds no codes.", "Give the safetensors that it was made from.")
    codes: dict[str, Any] = {tensor.name: tensor.read for tensor in tensors if tensor.coded}
    floats: dict[str, Any] = {tensor.name: tensor.read for tensor in tensors if not tensor.coded}
    return CodedCheckpoint("GGUF", codes, floats, kinds)
