"""The work of the `prune` pass on the residual stream: follow it, choose the features that stay, record the edit."""

from __future__ import annotations

from pipeline.compress.pass_run import PassRun
from pipeline.compress.prune.hidden.config import PruneHidden
from pipeline.compress.prune.hidden.narrow import make_edit, runner
from pipeline.compress.prune.hidden.residual import Residual, find_residual, width_of
from pipeline.compress.prune.units import strongest
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes what `PassRun.save` writes.

    StageError if the model's stream cannot be followed, the ratio does not fit it, or its output would change.
    """
    work = PassRun(context)
    config = PruneHidden.model_validate(work.config)
    data = work.calibration(config.samples, config.seed)
    residual = find_residual(work.model, width_of(work.model), runner(data))
    count = kept_count(config, residual)
    keep = strongest(config.score(data, residual), count)
    edits = [make_edit(work.model, residual, keep, data)]
    smaller = work.edited(edits)
    work.save(smaller, edits)
    return work.report(
        "prune",
        smaller,
        config.samples,
        unit="hidden",
        importance=config.importance,
        hidden_before=residual.width,
        hidden_after=count,
        ratio=round(1 - count / residual.width, 6),
        config=work.hf_config(smaller, edits),
        narrowed=len({axis.parameter for axis in residual.axes}),
    )


def kept_count(config: PruneHidden, residual: Residual) -> int:
    """StageError if the ratio leaves nothing or all, or the output would change unasked."""
    count = round(residual.width * (1 - config.ratio) / config.round_to) * config.round_to
    if not 0 < count < residual.width:
        raise StageError(
            f"prune: a ratio of {config.ratio} of {residual.width} hidden features, rounded to multiples of "
            f"{config.round_to}, would leave {count}.",
            "Change ratio, or lower round_to.",
        )
    if residual.outputs and not config.change_output:
        raise StageError(
            f"prune: the residual stream is the model's output too: it would have {count} values instead of "
            f"{residual.width}, which cannot be compared with those that the model gave before.",
            'Give change_output = true if the app computes all of them anew, or use unit = "heads", "ffn" or "layers".',
        )
    return count
