"""What calibration samples show of layers' inputs and outputs, added up batch by batch in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pipeline.compress.low_rank.layers import Candidate, Layer, Places
from pipeline.compress.prune.importance.taylor import PROBES, objective
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.compress.shared.hooks import after_calls
from pipeline.compress.shared.input_moments import RowSums
from pipeline.numerics.low_rank import Double

_NONE = torch.zeros(0, dtype=torch.float64)
_BYTES = 1 << 29
"""How much memory the second moments may take at once; more layers take more passes over the samples."""


@dataclass(frozen=True)
class Moments:
    """Means over all rows that a layer read, padding left out: `gram` of x x^T, float64 [n, n], of an embedding [rows]
    the shares of the lookups; `magnitude` of |x|, float64 [n]. Convolutions: of their input's pixels."""

    gram: Double
    magnitude: Double


def places(data: CalibrationData, modules: Mapping[str, Layer]) -> dict[str, Places]:
    """Of the first sample. A layer without rows is not called, or not as a module, so that nothing could take its
    place."""
    found = dict.fromkeys(modules, Places())

    def count(name: str, module: Layer, inputs: Tensor, output: Tensor) -> None:
        before = found[name]
        if isinstance(module, nn.Conv2d):
            read, given = inputs[0, 0].numel(), output[0, 0].numel()
            between = output.shape[-2] * inputs.shape[-1]
        else:
            read = given = between = output.numel() // output.shape[-1]
        found[name] = Places(before.read + read, before.given + given, before.between + between)

    with after_calls(modules, count), torch.inference_mode():
        data.forward(data.example)
    return found


def moments(data: CalibrationData, layers: Sequence[Candidate]) -> Iterator[tuple[Candidate, Moments]]:
    """Of each layer that a sample reaches, in the memory that `_BYTES` says, however many layers and samples there
    are."""
    groups = _groups(layers)
    for number, group in enumerate(groups):
        yield from _moments_of(data, group, number, len(groups))


def output_curvature(data: CalibrationData, layers: Sequence[Candidate]) -> dict[str, float]:
    """What a unit of squared error of a layer's outputs, spread over all of them alike, does to what the task looks at:
    the squared gradient of a random objective, summed over a sample's rows and averaged over the outputs.

    The objectives' squared gradients are the curvature of the KL divergence or of the squared change of an embedding
    (`importance.taylor.objective`), so that this times the mean squared error is the damage to second order.
    """
    generator = torch.Generator().manual_seed(data.seed)
    totals = dict.fromkeys((layer.name for layer in layers), 0.0)
    family: str = data.spec.family

    def watch(name: str, module: Layer, inputs: Tensor, output: Tensor) -> Tensor:  # noqa: ARG001
        # a new leaf if all before it is frozen, cloned since what follows may change it in place
        output = output if output.requires_grad else output.detach().requires_grad_().clone()

        def add(gradient: Tensor) -> None:
            width = output.shape[1 if isinstance(module, nn.Conv2d) else -1]
            totals[name] += float(gradient.double().square().sum()) / width

        output.register_hook(add)  # type: ignore[no-untyped-call]  # torch's own
        return output

    done = 0
    with after_calls({layer.name: layer.module for layer in layers}, watch), torch.enable_grad():
        for batch in data.batches():
            rows = data.judged(batch)
            for probe in range(PROBES):
                loss = objective(rows, family, generator)
                torch.autograd.backward(loss, retain_graph=probe + 1 < PROBES)
                data.model.zero_grad(set_to_none=True)
            done += len(next(iter(batch.values())))
            data.progress(done, len(data.samples))
    return {name: total / (done * PROBES) for name, total in totals.items()}


def _moments_of(
    data: CalibrationData, layers: Sequence[Candidate], number: int, groups: int
) -> Iterator[tuple[Candidate, Moments]]:
    sums = RowSums()

    def add(name: str, module: Layer, inputs: Tensor, output: Tensor) -> None:  # noqa: ARG001
        if isinstance(module, nn.Embedding):
            ids = sums.rows(inputs[..., None]).flatten()
            sums.add(name, len(ids), torch.bincount(ids, minlength=module.num_embeddings).double(), _NONE)
            return
        rows = inputs.movedim(-3, -1).flatten(0, -2) if isinstance(module, nn.Conv2d) else sums.rows(inputs)
        rows = rows.double()
        sums.add(name, len(rows), rows.T @ rows, rows.abs().sum(0))

    def progress(done: int, of: int) -> None:
        data.progress(number * of + done, groups * of)

    with after_calls({layer.name: layer.module for layer in layers}, add):
        replace(data, progress=progress).run(sums.begin)
    for layer in layers:
        if found := sums.means(layer.name):
            gram, magnitude = found
            yield layer, Moments(gram.numpy(), magnitude.numpy())


def _groups(layers: Sequence[Candidate]) -> list[list[Candidate]]:
    groups: list[list[Candidate]] = []
    used = _BYTES
    for layer in layers:
        size = 8 * _inputs(layer) ** (1 if layer.kind == "embedding" else 2)
        if used + size > _BYTES:
            groups.append([])
            used = 0
        groups[-1].append(layer)
        used += size
    return groups


def _inputs(layer: Candidate) -> int:
    module = layer.module
    if isinstance(module, nn.Conv2d):
        return module.in_channels
    return module.num_embeddings if isinstance(module, nn.Embedding) else module.in_features
