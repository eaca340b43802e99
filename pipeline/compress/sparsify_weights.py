"""The work of the `sparsify` pass: zero weights, record that they stay zero, and say what that saves and what not."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from pipeline.compress.edits.zeros import HoldZeros, held_weights
from pipeline.compress.matrices import Multiplier
from pipeline.compress.model import load_compressed, save_compressed
from pipeline.compress.moments import Batch, Calibration
from pipeline.compress.sparse_layers import sparse_layers
from pipeline.compress.sparsifier import by_inputs, by_magnitude
from pipeline.compress.sparsify import Sparsify
from pipeline.compress.trial import batches, make_trial, pass_facts
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext
from pipeline.core.types import Json, Scheme
from pipeline.numerics.sparse import compressed_bytes, dense_bytes
from pipeline.source.samples import open_samples
from pipeline.source.torch_model import wrap

UNREACHED = "calibration samples never reach it"


def run(context: StageContext) -> dict[str, Json]:
    """Stage function. Writes `edits.json` and `weights.safetensors`.

    StageError if the model has nothing to sparsify, a layer would be empty, or nothing would be removed.
    """
    config = Sparsify.model_validate(context.config["pass"])
    earlier = load_compressed(context.config["source"], context.inputs)
    model = copy.deepcopy(earlier.model)
    layers, left = sparse_layers(model, config)
    damping = _sparsify(model, layers, held_weights(earlier.edits), config, context)
    unreached = [name for name in layers if name not in damping]
    left += [_left(f"{name}.weight", layers.pop(name).weight, UNREACHED) for name in unreached]
    rows = _layers(layers, damping, config, Scheme.model_validate(context.config["scheme"]))
    _require_zeros(rows, config)
    edits = [*earlier.edits, HoldZeros(weights=tuple(f"{name}.weight" for name in layers)).model_dump(mode="json")]
    save_compressed(context.out, model, edits, trained=True)
    totals = _totals(rows)
    return {
        "pass": "sparsify",
        "method": config.method,
        **({"pattern": config.pattern} if config.pattern else {"scope": config.shared}),
        **totals,
        **pass_facts(make_trial(context, config.samples), earlier.model, model),
        "notes": [_note(totals, config)],
        "layers": rows,
        "left_dense": left,
    }


def _sparsify(
    model: nn.Module,
    layers: Mapping[str, Multiplier],
    held: Iterable[str],
    config: Sparsify,
    context: StageContext,
) -> dict[str, float]:
    """The damping of every layer that was taken; 0 where none is needed."""
    if config.method == "magnitude":
        by_magnitude(layers, config)
        return dict.fromkeys(layers, 0.0)
    samples = open_samples(context.inputs["calibration"].path, config.samples)
    wrapped = wrap(model, context.config["source"])

    def forward(batch: Batch) -> object:
        return wrapped(**batch)

    names = {name.removesuffix(".weight") for name in held}
    return by_inputs(layers, config, Calibration(forward, lambda: batches(samples)), names, context.progress)


def _layers(
    layers: Mapping[str, Multiplier], damping: Mapping[str, float], config: Sparsify, scheme: Scheme
) -> list[dict[str, Json]]:
    return [_layer(name, module, damping[name], config, _bits(module, scheme)) for name, module in layers.items()]


def _layer(name: str, module: Multiplier, damping: float, config: Sparsify, bits: int) -> dict[str, Json]:
    values = module.weight.numel()
    kept = int(module.weight.count_nonzero())
    return {
        "layer": name,
        "values": values,
        "zeros": values - kept,
        "sparsity": round(1 - kept / values, 6),
        "bits": bits,
        "dense_bytes": dense_bytes(values, bits),
        "compressed_bytes": compressed_bytes(values, kept, bits, config.n_of_m),
        **({"damping": damping} if damping else {}),
    }


def _bits(module: nn.Module, scheme: Scheme) -> int:
    """Of a stored weight; convolutions are rounded by static INT8 and halved, and else stay in float."""
    if isinstance(module, nn.Linear) or scheme.weights == 16 or (scheme.weights, scheme.activations) == (8, "static"):
        return scheme.weights
    return 32


def _left(name: str, weight: Tensor, reason: str) -> dict[str, Json]:
    return {"weight": name, "values": weight.numel(), "reason": reason}


def _require_zeros(rows: list[dict[str, Any]], config: Sparsify) -> None:
    if not any(row["zeros"] for row in rows):
        raise StageError(
            f"sparsify: {f'a sparsity of {config.sparsity:g}' if rows else 'the samples'} would remove nothing.",
            "Raise the sparsity, or remove the sparsify pass from the recipe.",
        )


def _totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("values", "zeros", "dense_bytes", "compressed_bytes")
    values, zeros, dense, compressed = (sum(row[name] for row in rows) for name in names)
    return {
        "values": values,
        "zeros": zeros,
        "sparsity": round(zeros / values, 6),
        "dense_bytes": dense,
        "compressed_bytes": compressed,
    }


def _note(totals: dict[str, Any], config: Sparsify) -> str:
    """What a reader must not expect of zeros."""
    dense, compressed = (totals[name] / 1e6 for name in ("dense_bytes", "compressed_bytes"))
    stored = f"values and their indices in {config.pattern}" if config.pattern else "values and a bitmask"
    return (
        f"{100 * totals['sparsity']:.1f} % of the sparse layers' weights are zero, and run dense: no speed-up on this "
        f"target, as ONNX Runtime's CPU kernels multiply by zeros too. Stored as {stored}, these weights would take "
        f"{compressed:.3g} MB instead of {dense:.3g} MB, scales not counted; the bundle stores them dense."
    )
