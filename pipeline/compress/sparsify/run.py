"""The work of the `sparsify` pass: zero weights, and record that they stay zero."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from pipeline.compress.compressed_model import load_compressed, save_compressed
from pipeline.compress.edits.zeros import HoldZeros, holds_zeros
from pipeline.compress.passes import pass_report
from pipeline.compress.shared.fidelity_trial import make_trial, pass_facts
from pipeline.compress.shared.forward import Batch, batches
from pipeline.compress.shared.input_moments import Calibration
from pipeline.compress.shared.matrices import Multiplier
from pipeline.compress.sparsify.config import Sparsify
from pipeline.compress.sparsify.layers import sparse_layers
from pipeline.compress.sparsify.methods import by_inputs, by_magnitude
from pipeline.core.errors import StageError
from pipeline.core.report_types import Skipped
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Json
from pipeline.data.samples import open_samples
from pipeline.source.torch_model import wrap

UNREACHED = "calibration samples never reach it"


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes `edits.json` and `weights.safetensors`.

    StageError if the model has nothing to sparsify, a layer would be empty, or nothing would be removed.
    """
    config = Sparsify.model_validate(context.config["pass"])
    earlier = load_compressed(context.model, context.inputs)
    model = copy.deepcopy(earlier.model)
    layers, skipped = sparse_layers(model, config)
    damping = _sparsify(model, layers, holds_zeros(earlier.edits), config, context)
    unreached = [name for name in layers if name not in damping]
    skipped += [
        Skipped(name=f"{name}.weight", size=layers.pop(name).weight.numel(), reason=UNREACHED) for name in unreached
    ]
    rows = [_layer(name, module, damping[name]) for name, module in layers.items()]
    _require_zeros(rows, config)
    edits = [*earlier.edits, HoldZeros(weights=tuple(f"{name}.weight" for name in layers)).model_dump(mode="json")]
    save_compressed(context.out, model, edits, trained=True)
    values, zeros = (sum(row[name] for row in rows) for name in ("values", "zeros"))
    return pass_report(
        "sparsify",
        method=config.method,
        **({"pattern": config.pattern} if config.pattern else {"scope": config.shared}),
        values=values,
        zeros=zeros,
        sparsity=round(zeros / values, 6),
        **pass_facts(make_trial(context, config.samples), earlier.model, model),
        layers=rows,
        skipped=skipped,
    )


def _sparsify(
    model: nn.Module,
    layers: Mapping[str, Multiplier],
    held: bool,
    config: Sparsify,
    context: StageContext,
) -> dict[str, float]:
    """The damping of every layer that was taken; 0 where none is needed."""
    if config.method == "magnitude":
        by_magnitude(layers, config)
        return dict.fromkeys(layers, 0.0)
    samples = open_samples(context.inputs["calibration"].path, config.samples)
    wrapped = wrap(model, context.model)

    def forward(batch: Batch) -> object:
        return wrapped(**batch)

    return by_inputs(layers, config, Calibration(forward, lambda: batches(samples)), held, context.progress)


def _layer(name: str, module: Multiplier, damping: float) -> dict[str, Json]:
    values = module.weight.numel()
    zeros = values - int(module.weight.count_nonzero())
    return {
        "layer": name,
        "kind": "Linear" if isinstance(module, nn.Linear) else "Conv2d",
        "values": values,
        "zeros": zeros,
        "sparsity": round(zeros / values, 6),
        **({"damping": damping} if damping else {}),
    }


def _require_zeros(rows: list[dict[str, Any]], config: Sparsify) -> None:
    if not any(row["zeros"] for row in rows):
        raise StageError(
            f"sparsify: {f'a sparsity of {config.sparsity:g}' if rows else 'the samples'} would remove nothing.",
            "Raise the sparsity, or remove the sparsify pass from the recipe.",
        )
