"""A model of transformers whose matrices stay in the files of its checkpoint until they are used, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping

from pipeline.core.known_digests import Stamp, stamp
from pipeline.core.model_spec import ModelSpec
from pipeline.graph.stored_matrix import FLOATS, Stored, StoredMatrix, changed, read_values
from pipeline.source.torch_model import loading, require_finite
from pipeline.source.weights import stored_tensors


@dataclass(frozen=True)
class Streamed:
    """`model`: in evaluation mode, with its vectors in float32 and its matrices on the device `meta`; `matrices`: by
    the names of its parameters, of which one may have several, those of the checkpoint; `files`: those that they lie
    in, with their stamps; `finite`: names of matrices that were read once and hold nothing but numbers."""

    model: PreTrainedModel
    matrices: Mapping[str, StoredMatrix]
    files: Mapping[Path, Stamp]
    finite: set[str] = field(default_factory=set)

    def require_unchanged(self) -> None:
        """StageError if a file of the checkpoint is another one than when it was opened."""
        for file, before in self.files.items():
            if not file.is_file() or stamp(file) != before:
                raise changed(file.name)

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @contextmanager
    def loaded_as_called(self) -> Iterator[None]:
        """While the context lasts, a module that is called has its matrices in memory, as float32, until it is done.
        StageError from the first call if they hold anything but numbers."""
        handles = []
        for module in self.model.modules():
            names = self._own(module)
            if names:
                handles.append(module.register_forward_pre_hook(self._loader(names)))
                handles.append(module.register_forward_hook(_unloader(module, names), always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def replaced(self, made: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
        """While the context lasts, `made` of each matrix's name and itself stands in its place."""
        before = {name: parameter for name, parameter in self.model.named_parameters() if name in self.matrices}
        new = {id(old): nn.Parameter(made(name, old), requires_grad=False) for name, old in before.items()}
        places = [(module, key, old) for module in self.model.modules() for key, old in module._parameters.items()]
        changed = [(module, key, old) for module, key, old in places if id(old) in new]
        for module, key, old in changed:
            module._parameters[key] = new[id(old)]
        try:
            yield
        finally:
            for module, key, old in changed:
                module._parameters[key] = old

    def _loader(self, names: Mapping[str, str]) -> Callable[..., None]:
        def load(module: nn.Module, *_: Any) -> None:
            for key, name in names.items():
                values = torch.from_numpy(self.matrices[name].read())
                if name not in self.finite and not _surely_finite(values):
                    require_finite([(name, values)])
                self.finite.add(name)
                module._parameters[key] = nn.Parameter(values, requires_grad=False)

        return load

    def _own(self, module: nn.Module) -> dict[str, str]:
        """The matrices that a module itself has: name in the module -> name in the model."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters() if name in self.matrices}
        return {key: names[id(value)] for key, value in module._parameters.items() if id(value) in names}


def _surely_finite(values: Tensor) -> bool:
    """Whether the sum of squares is a number. Unlike a look at each value, it takes no memory: torch makes copies for
    that, and the largest matrix may fill half of what there is."""
    flat = values.reshape(-1)
    return bool(torch.dot(flat, flat).isfinite())


def _unloader(module: nn.Module, names: Mapping[str, str]) -> Callable[..., None]:
    empty = {key: module._parameters[key] for key in names}

    def unload(called: nn.Module, *_: Any) -> None:
        called._parameters.update(empty)

    return unload


def open_streamed(spec: ModelSpec) -> Streamed | None:
    """The model of a Hugging Face folder with safetensors; None if its weights are others than those of the checkpoint,
    by name and shape, so that transformers itself must load it."""
    if spec.kind != "huggingface" or spec.coded or spec.pickle or spec.trust_remote_code:
        return None
    loader = getattr(transformers, spec.auto_class)
    with loading(spec.path.name, spec.auto_class), _matrices_on_meta():
        config = AutoConfig.from_pretrained(spec.path)
        model = loader.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    files = {spec.path / name: told for name, told in spec.stamps.items()}
    found = _matched(model, stored_tensors(spec.path))
    if found is None or get_model_conversion_mapping(model, add_legacy=False):
        return None
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in found and not tensor.is_meta:
            tensor.data.copy_(torch.from_numpy(read_values(found[name])))
    names = {id(each): name for name, each in model.named_parameters() if each.is_meta}
    every = model.named_parameters(remove_duplicate=False)
    matrices = {name: StoredMatrix.of(found[names[id(each)]]) for name, each in every if each.is_meta}
    return Streamed(model, matrices, files)


def _matched(model: PreTrainedModel, stored: Mapping[str, Stored]) -> dict[str, Stored] | None:
    """The stored tensors by the names of the model's parameters and buffers; None if a parameter has none, or another
    shape, or one that is used twice is stored twice."""
    prefix, names = f"{model.base_model_prefix}.", _names(model)
    named = {name if name in names else f"{prefix}{name}": each for name, each in stored.items()}
    parameters = dict(model.named_parameters())
    twice = [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in parameters]
    if any(name in named for name in twice):
        return None
    for name, parameter in parameters.items():
        if name not in named or named[name].shape != tuple(parameter.shape) or named[name].dtype not in FLOATS:
            return None
    return named


def _names(model: nn.Module) -> set[str]:
    every = (*model.named_parameters(remove_duplicate=False), *model.named_buffers())
    return {name for name, _ in every}


@contextmanager
def _matrices_on_meta() -> Iterator[None]:
    """Parameters of two axes and more are made without memory; buffers, which checkpoints need not have, are real."""
    own = nn.Module.register_parameter

    def register(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and param.dim() > 1 and not param.is_meta:
            param = nn.Parameter(param.to("meta"), requires_grad=False)
        own(module, name, param)

    nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = own  # type: ignore[method-assign]
