"""Stage function: learn the codes and scales of a language model's products, one block after the other.

Each block is trained to give what float gives, on inputs that the blocks before it, rounded by then, give (Chen et al.,
"EfficientQAT", arXiv 2407.11062, sec. 3.2); the last one so that the model's probabilities come close to float's. Then
the scales of all blocks may be tuned together by distillation (sec. 3.3). Beside the float model, memory holds one
block with its optimizer's state and a batch of windows; hidden states lie on disk.
"""

from __future__ import annotations

import shutil

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from pipeline.compress.compressed_model import load_compressed
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Learning, Scheme
from pipeline.data.samples import open_samples
from pipeline.graph.files import graph_file, load_model
from pipeline.quantize.heads import formats_of
from pipeline.quantize.layers import read_layers
from pipeline.quantize.learned.decoder import Decoder
from pipeline.quantize.learned.learner import Learner
from pipeline.quantize.learned.weights import ModelWeights
from pipeline.quantize.quantize import LEARNED, allocated, without_sensitive
from pipeline.source.cached import after_passes

_SCRATCH = "learning"
_FEW = 100_000
"""Tokens. With fewer, the codes of tinylm fit the calibration texts more than others (docs/language-models.md)."""


def run(context: StageContext) -> StageMetadata:
    """Writes `learned.safetensors` (see `quantize.LEARNED`); StageError if the calibration texts do not fill two
    batches, or the model does not come in blocks."""
    scheme = Scheme.model_validate(context.config["scheme"])
    learning = scheme.learning or Learning()
    assert context.model.language is not None  # noqa: S101  # the plan asked
    model = load_compressed(context.model, context.inputs).model.requires_grad_(False)
    language = after_passes(model, context.model.language)
    graph = load_model(graph_file(context.inputs["graph"].path)).graph
    layers, _ = read_layers(context.inputs["layers"], graph)
    formats = formats_of(scheme, layers, allocated(context))
    weights = ModelWeights(model, without_sensitive(layers, context)[0], formats)
    windows = text_windows(context, learning, language.longest)
    decoder = Decoder(model, language.layers, (windows[: learning.batch], windows[-learning.batch :]))
    folder = context.scratch or context.out / _SCRATCH
    learner = Learner(decoder, weights, windows, language.vocabulary, learning, folder, context.progress)
    learner.learn()
    shutil.rmtree(folder)
    save_file(weights.arrays(), context.out / LEARNED)
    return _metadata(learner, weights, windows.numel())


def text_windows(context: StageContext, learning: Learning, longest: int) -> Tensor:
    """The calibration texts one after the other, cut: int64 [windows, tokens]. What fills no batch is left out."""
    rows = open_samples(context.inputs["samples"].path)
    texts = [row["input_ids"][0][row["attention_mask"][0] == 1] for row in rows]
    tokens = min(learning.window, longest)
    flat = torch.from_numpy(np.concatenate(texts))
    whole = len(flat) // (tokens * learning.batch) * learning.batch
    if whole < 2 * learning.batch:
        raise StageError(
            f"Learned rounding trains on batches of {learning.batch} windows of {tokens} tokens, and needs two of "
            f"them; the calibration texts have {len(flat)} tokens.",
            "Give more texts with --calibration-data (100,000 tokens and more pay), or set a smaller window or batch "
            "in [scheme.learning].",
        )
    return flat[: whole * tokens].view(whole, tokens)


def _metadata(learner: Learner, weights: ModelWeights, tokens: int) -> StageMetadata:
    kept = [unit for unit, (before, after) in learner.losses.items() if not after < before]
    notes = []
    if tokens < _FEW:
        notes.append(f"Codes were learned from {tokens} tokens only: give {_FEW} and more with --calibration-data.")
    if kept:
        notes.append(f"Learning did not help on texts held back, and its result was not taken, in: {', '.join(kept)}.")
    if weights.unmatched:
        notes.append(
            f"Rounded to the nearest code, since the PyTorch model has no such weight: {', '.join(weights.unmatched)}."
        )
    losses = {unit: {"before": before, "after": after} for unit, (before, after) in learner.losses.items()}
    return {"tokens": tokens, "losses": losses, "notes": notes}
