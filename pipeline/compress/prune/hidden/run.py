"""The work of the `prune` pass on the residual stream: follow it, choose the features that stay, record the edit."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.compress.compressed_model import load_compressed, save_compressed
from pipeline.compress.edits import replay
from pipeline.compress.edits.hf_config import update_config
from pipeline.compress.edits.hidden import Along, KeepHidden
from pipeline.compress.passes import pass_report
from pipeline.compress.prune.hidden import WIDTHS
from pipeline.compress.prune.hidden.config import PruneHidden
from pipeline.compress.prune.hidden.residual import Residual, Run, find_residual
from pipeline.compress.prune.importance.data import ScoringData
from pipeline.compress.prune.units import strongest
from pipeline.compress.shared.fidelity_trial import make_trial, pass_facts
from pipeline.compress.shared.forward import batches, judged
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Json
from pipeline.data.samples import open_samples
from pipeline.source.torch_model import wrap

_TRIED = 3  # samples that the stream is followed with


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes what `save_compressed` writes.

    StageError if the model's stream cannot be followed, the ratio does not fit it, or its output would change.
    """
    config, spec = PruneHidden.model_validate(context.config["pass"]), context.model
    earlier = load_compressed(spec, context.inputs)
    samples = open_samples(context.inputs["calibration"].path, config.samples)
    data = ScoringData(earlier.model, spec, samples, config.seed, context.progress)
    residual = find_residual(earlier.model, width_of(earlier.model), runner(data, earlier.model))
    count = kept_count(config, residual)
    keep = strongest(WIDTHS.get(config.importance)(data, residual), count)
    edit = make_edit(earlier.model, residual, keep, data)
    smaller = replay(copy.deepcopy(earlier.model), [edit])
    edits = [*earlier.edits, edit]
    save_compressed(context.out, smaller, edits, earlier.trained)
    return pass_report(
        "prune",
        unit="hidden",
        importance=config.importance,
        hidden_before=residual.width,
        hidden_after=count,
        ratio=round(1 - count / residual.width, 6),
        **pass_facts(make_trial(context, config.samples), earlier.model, smaller),
        config=update_config(smaller, edits),
        narrowed=len({axis.parameter for axis in residual.axes}),
    )


def width_of(model: nn.Module) -> int:
    """What the config says, else the size that most norms have. StageError if there is neither."""
    told = getattr(getattr(model, "config", None), "hidden_size", None)
    if isinstance(told, int):
        return told
    sizes = Counter(p.numel() for name, p in model.named_parameters() if p.dim() == 1 and name.endswith("weight"))
    if not sizes:
        raise StageError(
            f"prune: nothing says how wide the residual stream of {type(model).__name__} is.",
            "Remove the pass from the recipe.",
        )
    return sizes.most_common(1)[0][0]


def runner(data: ScoringData, model: nn.Module) -> Run:
    """Gives the output of `model` that is judged, on the first few samples."""
    wrapped = wrap(model, data.spec)
    batch = {name: value[:_TRIED] for name, value in next(iter(batches(data.samples))).items()}

    def run_few() -> Tensor:
        with torch.inference_mode():
            return judged(wrapped, batch, data.spec.family)

    return run_few


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


def make_edit(model: nn.Module, residual: Residual, keep: tuple[int, ...], data: ScoringData) -> dict[str, Json]:
    """The record, with what the model's config can say of it."""
    along = tuple(Along(parameter=name, axis=axis) for name, axis in residual.axes)
    edit = KeepHidden(along=along, keep=keep)
    values = _expressible(model, edit, data)
    return edit.model_copy(update={"config": values}).model_dump(mode="json")


def _expressible(model: nn.Module, edit: KeepHidden, data: ScoringData) -> dict[str, int]:
    """The config's new values, if a model that transformers builds from them takes the narrower weights and gives the
    same output; else none: architectures that divide the width by the heads (BERT) cannot say it."""
    if not isinstance(model, PreTrainedModel):
        return {}
    narrow = copy.deepcopy(model)
    edit.apply(narrow)
    values = {"hidden_size": len(edit.keep), **_head_dim(model)}
    config = copy.deepcopy(narrow.config)
    for key, value in values.items():
        setattr(config, key, value)
    try:
        built = type(model)(config).eval()
        built.load_state_dict(narrow.state_dict())
    except (ValueError, RuntimeError, TypeError):  # whatever it raises, the config cannot say it
        return {}
    return values if torch.allclose(runner(data, built)(), runner(data, narrow)(), atol=1e-5) else {}


def _head_dim(model: Any) -> dict[str, int]:
    """A head size of its own, which then no longer follows from the width."""
    found = {module.head_dim for module in model.modules() if isinstance(getattr(module, "head_dim", None), int)}
    return {"head_dim": found.pop()} if len(found) == 1 else {}
