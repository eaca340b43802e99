"""A checkpoint of codes: what it is told by, and opening it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import read_json_object
from pipeline.source.coded.contents import CodedCheckpoint
from pipeline.source.coded.gguf import gguf_tensors
from pipeline.source.coded.methods import METHODS, Modules
from pipeline.source.coded.tensors import Tensors
from pipeline.source.model_config import QUANTIZATION

GGUF = ".gguf"
_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}


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
    settings = config.get(QUANTIZATION) or _beside(folder)
    if not settings:
        return None
    said = settings.get("quant_method") if isinstance(settings, dict) else None
    method = said if isinstance(said, str) else None
    if method not in METHODS:
        raise UsageError(
            f"The weights of {folder.name!r} are quantized already ({method or f'{QUANTIZATION} in config.json'}), in "
            f"a form that is not read; {', '.join(METHODS)} and GGUF are.",
            "Give one of these, or the checkpoint that it was made from, in float32, float16 or bfloat16.",
        )
    title, modules = METHODS[method]
    return _of_modules(title, Tensors.of(folder), modules, settings)


def _beside(folder: Path) -> dict[str, Any] | None:
    """The settings in a file of their own, as older AutoGPTQ and AutoAWQ write them."""
    for name, method in _FILES.items():
        if (folder / name).is_file():
            return {"quant_method": method, **read_json_object(folder / name)}
    return None


def _of_modules(
    title: str,
    tensors: Tensors,
    modules: Modules,
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
    codes = {module.name: module.read for module in found}
    return CodedCheckpoint(title, codes, floats, kinds, _left_out(settings))


def _left_out(settings: Mapping[str, Any]) -> str:
    """What compressed-tensors' settings say of values that are no weights."""
    groups = settings.get("config_groups")
    each = groups.values() if isinstance(groups, dict) else ()
    inputs = any(isinstance(group, dict) and group.get("input_activations") for group in each)
    named = [*(["activations"] if inputs else []), *(["keys and values"] if settings.get("kv_cache_scheme") else [])]
    return f" It asks for rounded {' and '.join(named)} too: those follow the recipe." if named else ""


def _reading(tensors: Tensors, name: str) -> Callable[[], Any]:
    return lambda: tensors.read(name).astype("float32")


def _of_gguf(path: Path) -> CodedCheckpoint:
    tensors = gguf_tensors(path)
    kinds = Counter(tensor.kind for tensor in tensors if tensor.coded)
    if not kinds:
        raise UsageError(f"{path.name!r} holds no codes.", "Give the safetensors that it was made from.")
    codes: dict[str, Any] = {tensor.name: tensor.read for tensor in tensors if tensor.coded}
    floats: dict[str, Any] = {tensor.name: tensor.read for tensor in tensors if not tensor.coded}
    return CodedCheckpoint("GGUF", codes, floats, kinds)
