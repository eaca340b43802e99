"""Running a model in PyTorch over samples, and what of its outputs is judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree

from pipeline.core.model_spec import ModelSpec
from pipeline.data.samples import Samples
from pipeline.runtime.infer import sample_of
from pipeline.source.torch_model import wrap
from pipeline.tasks.language_model import LanguageHead
from pipeline.tasks.output_kind import Output, OutputKind, unmasked
from pipeline.tasks.registry import OUTPUTS

Batch = dict[str, Tensor]
BATCH = 32
_LOGITS = 2**26
"""Values that a language model may give at once: 268 MB."""


def at_once(spec: ModelSpec, sizes: Sequence[int], most: int = BATCH) -> int:
    """How many samples run at once: fewer than `most` where each gives as many logits as a large vocabulary has for
    every token. `sizes`: tokens of the samples."""
    if spec.language is None:
        return most
    return max(1, min(most, _LOGITS // (max(sizes) * spec.language.vocabulary)))


def judged_samples(spec: ModelSpec, sizes: Sequence[int]) -> int:
    """How many of the samples are judged: of a language model those that have together as many tokens as are read of an
    evaluation set, which bounds the memory that their probabilities take."""
    if spec.language is None:
        return len(sizes)
    read = LanguageHead.model_validate(spec.head).tokens
    return max(1, int((np.cumsum(sizes) <= read).sum()))


def sizes_of(samples: Samples) -> list[int]:
    """Values of each sample's first input: tokens of a text."""
    first = next(iter(samples[0]))
    return [int(np.prod(samples.shapes(index, [first])[0])) for index in range(len(samples))]


def batches(samples: Samples, size: int = BATCH) -> Iterator[Batch]:
    """Zero-padded batches in sample order; zero is masked out by `attention_mask`."""
    for start in range(0, len(samples), size):
        rows = [samples[index] for index in range(start, min(start + size, len(samples)))]
        yield {name: _pad([row[name] for row in rows]) for name in rows[0]}


def _pad(arrays: list[NDArray[Any]]) -> Tensor:
    tensors = [torch.from_numpy(np.ascontiguousarray(array[0])) for array in arrays]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True)


def all_rows(model: nn.Module, spec: ModelSpec, batches: Iterable[Batch], kind: OutputKind) -> NDArray[Any]:
    """The rows of all samples, one after the other, of the model as it will be exported."""
    exported = wrap(model, spec)
    return kind.join([rows for batch in batches for rows in judged_rows(exported, batch, kind)])


def judged_rows(model: nn.Module, batch: Batch, kind: OutputKind) -> list[NDArray[Any]]:
    """The rows of each sample, which `kind` makes of the outputs as it does of a graph's. No gradients."""
    with torch.inference_mode():
        outputs = _arrays(_judged_outputs(model, batch, kind))
    inputs = _arrays(batch)
    count = len(next(iter(inputs.values())))
    return [kind.rows(sample_of(outputs, place), sample_of(inputs, place)) for place in range(count)]


def judged(model: nn.Module, batch: Batch, family: str) -> Tensor:
    """What losses and gradients look at, of a whole batch: what `OutputKind.rows` is made of. Of several outputs the
    values stand beside each other; of a kind that compares outputs whole, all floats of a sample are a row."""
    kind = OUTPUTS.get(family)
    outputs = [value for value in _judged_outputs(model, batch, kind).values() if value.is_floating_point()]
    if kind.whole:
        return torch.cat([value.flatten(1) for value in outputs], dim=1)
    if len(outputs) > 1:
        return torch.cat(outputs, dim=-1)
    (values,) = outputs
    if values.dim() <= 2:
        return values.reshape(len(values), -1)
    mask = torch.from_numpy(unmasked(_arrays(batch), tuple(values.shape[:2]))).to(values.device)
    if kind.per_token or kind.self_labelled:
        return values[mask.bool()]
    weights = mask.unsqueeze(-1).to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1)


def _judged_outputs(model: nn.Module, batch: Batch, kind: OutputKind) -> Batch:
    found = _named(model(**batch))
    offered = [
        Output(name, str(value.dtype).removeprefix("torch."), tuple(value.shape)) for name, value in found.items()
    ]
    return {name: found[name] for name in kind.judged(offered)}


def _named(output: Any) -> Batch:
    """Tensors by name; those of a plain module by their places."""
    if not isinstance(output, Mapping):
        leaves = [value for value in _pytree.tree_leaves(output) if isinstance(value, Tensor)]
        return {str(place): value for place, value in enumerate(leaves)}
    return {name: value for name, value in output.items() if isinstance(value, Tensor)}


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
