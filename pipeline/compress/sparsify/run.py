"""The work of the `sparsify` pass: zero weights, and record that they stay zero."""

from __future__ import annotations

import copy
from typing import Any

from pipeline.compress.edits.zeros import HoldZeros, holds_zeros
from pipeline.compress.pass_run import PassRun
from pipeline.compress.sparsify.config import Sparsify
from pipeline.compress.sparsify.layers import sparse_layers, summary, unreached
from pipeline.compress.sparsify.methods import set_zeros
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes `edits.json` and `weights.safetensors`.

    StageError if the model has nothing to sparsify, a layer would be empty, or nothing would be removed.
    """
    work = PassRun(context)
    config, model = Sparsify.model_validate(work.config), copy.deepcopy(work.model)
    layers, skipped = sparse_layers(model, config)
    damping = set_zeros(layers, config, work.calibration(config.samples, 0, model), holds_zeros(work.before.edits))
    skipped += [unreached(name, layers.pop(name)) for name in list(layers) if name not in damping]
    rows = [summary(name, module, damping[name]) for name, module in layers.items()]
    _require_zeros(rows, config)
    edit = HoldZeros(weights=tuple(f"{name}.weight" for name in layers))
    work.save(model, [edit.model_dump(mode="json")], trained=True)
    values, zeros = (sum(row[name] for row in rows) for name in ("values", "zeros"))
    return work.report(
        "sparsify",
        model,
        config.samples,
        method=config.method,
        **({"pattern": config.pattern} if config.pattern else {"scope": config.shared}),
        values=values,
        zeros=zeros,
        sparsity=round(zeros / values, 6),
        layers=rows,
        skipped=skipped,
    )


def _require_zeros(rows: list[dict[str, Any]], config: Sparsify) -> None:
    if not any(row["zeros"] for row in rows):
        raise StageError(
            f"sparsify: {f'a sparsity of {config.sparsity:g}' if rows else 'the samples'} would remove nothing.",
            "Raise the sparsity, or remove the sparsify pass from the recipe.",
        )
