"""Setting weights of a model to zero, layer by layer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from pipeline.compress.shared.input_moments import Calibration, call_order, second_moments
from pipeline.compress.shared.matrices import Multiplier, matrices, set_matrices
from pipeline.compress.sparsify.config import Sparsify
from pipeline.core.errors import StageError
from pipeline.numerics.affine import Float
from pipeline.numerics.gptq import Double
from pipeline.numerics.sparse import Mask, refined, sparsegpt, wanda_scores

_BLOCK = re.compile(r"(.*?\.\d+)\.")


def set_zeros(
    layers: Mapping[str, Multiplier], config: Sparsify, calibration: Calibration, held: bool
) -> dict[str, float]:
    """Zero weights of the layers, in place. `held`: zeros stay.

    Returns the damping that each Hessian needed, 0 where a method has none. Layers that no sample reaches are not among
    its keys. StageError if a layer would be empty, or its inputs are of no use.
    """
    if config.method == "magnitude":
        by_magnitude(layers, config)
        return dict.fromkeys(layers, 0.0)
    return by_inputs(layers, config, calibration, held)


def by_magnitude(layers: Mapping[str, Multiplier], config: Sparsify) -> None:
    """Zero the weights of the smallest magnitude, in place. StageError if that would empty a layer."""
    weights = {name: _values(module) for name, module in layers.items()}
    scores = {name: np.abs(weight) for name, weight in weights.items()}
    for name, gone in _removed(scores, config).items():
        if gone.all():
            raise StageError(
                f"sparsify: a sparsity of {config.sparsity:g} over all layers would empty {name!r}.",
                f'Lower it, leave that layer out with ignore = ["{name}"], or use scope = "layer".',
            )
        _set(layers[name], np.where(gone, np.float32(0), weights[name]))


def _removed(scores: Mapping[str, Float], config: Sparsify) -> dict[str, Mask]:
    if config.shared != "global":
        return {name: config.amount.removed(values) for name, values in scores.items()}
    gone = config.amount.removed(np.concatenate([values.ravel() for values in scores.values()]))
    ends = np.cumsum([values.size for values in scores.values()])[:-1]
    parts = zip(scores.items(), np.split(gone, ends), strict=True)
    return {name: part.reshape(values.shape) for (name, values), part in parts}


def by_inputs(
    layers: Mapping[str, Multiplier],
    config: Sparsify,
    calibration: Calibration,
    held: bool,
) -> dict[str, float]:
    """Zero weights by what calibration shows of the inputs, in place: block by block in the order of the model, on what
    the blocks before give when they are sparse already (as both papers do), unless the config says all at once.
    `held`: zeros stay.

    Returns the damping that each Hessian needed (`sparsegpt`). Layers that no sample reaches are as they were and not
    among its keys; with `wanda` every damping is 0.
    """
    calls = call_order(calibration, layers)
    later = [name for name in layers if name not in calls]  # a router may reach them with another batch
    blocks = [*in_blocks(calls), *([later] if later else [])] if config.sequential else [list(layers)]
    damping: dict[str, float] = {}
    for done, block in enumerate(blocks):
        calibration.progress(done, len(blocks))
        watched = {name: layers[name] for name in block}
        moments = second_moments(calibration, watched, calls, full=config.method == "sparsegpt")
        for name, moment in moments.items():
            damping[name] = _sparsify(name, layers[name], moment, config, held)
    calibration.progress(len(blocks), len(blocks))
    return damping


def _sparsify(name: str, module: Multiplier, moment: Tensor, config: Sparsify, held: bool) -> float:
    if not bool(torch.isfinite(moment).all()):
        raise StageError(
            f"sparsify: the inputs of {name!r} are not finite on calibration samples.",
            'Check the model and the samples, or use method = "magnitude".',
        )
    weight, found = _values(module), moment.numpy()
    if config.method == "wanda":
        gone = config.amount.removed(wanda_scores(weight, found))
        _set(module, np.where(gone, np.float32(0), weight))
        return 0.0
    try:
        parts = [_solved(part, hessian, config, held) for part, hessian in zip(weight, found, strict=True)]
    except np.linalg.LinAlgError as error:
        raise StageError(
            f"sparsify: the inputs of {name!r} have no invertible Hessian, however much it is damped.",
            f'Calibrate on other samples, leave the layer out with ignore = ["{name}"], or use method = "wanda".',
        ) from error
    _set(module, np.stack([part for part, _ in parts]))
    return max(damping for _, damping in parts)


def _solved(weight: Float, hessian: Double, config: Sparsify, held: bool) -> tuple[Float, float]:
    sparse, damping = sparsegpt(weight, hessian, config.amount, weight == 0 if held else None)
    return refined(weight, sparse, hessian, damping, config.sweeps), damping


def _values(module: Multiplier) -> Float:
    """float32 [groups, rows, columns]."""
    return matrices(module).numpy()


def _set(module: Multiplier, values: Float) -> None:
    set_matrices(module, torch.from_numpy(values))


def in_blocks(order: Iterable[str]) -> list[list[str]]:
    """Names in the order of their calls, those of one block of a model (`encoder.layer.3`) together."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in order:
        match = _BLOCK.match(name)
        groups[match.group(1) if match else name].append(name)
    return list(groups.values())
