"""The work of the `prune` pass on the vocabulary, once its tokenizer is made: slice what has a row per token."""

from __future__ import annotations

import json

from torch import nn
from transformers import PreTrainedModel

from pipeline.compress import PREVIOUS_CALIBRATION
from pipeline.compress.edits.tokens import SIZE, KeepTokens
from pipeline.compress.pass_run import PassRun
from pipeline.compress.prune.tokens.trim_tokenizer import KEPT
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.data.encode import TOKENIZER


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes what `PassRun.save` writes. StageError if the model has no table of tokens."""
    work, tokenizer = PassRun(context), context.inputs[TOKENIZER]
    keep = tuple(json.loads(tokenizer.file(KEPT).read_text(encoding="utf-8")))
    edit = make_edit(work.model, keep)
    edits = [edit.model_dump(mode="json")]
    smaller = work.edited(edits)
    work.save(smaller, edits)
    return work.report(
        "prune",
        smaller,
        work.config["samples"],
        PREVIOUS_CALIBRATION,
        unit="tokens",
        **tokenizer.metadata,
        config=work.hf_config(smaller, edits),
        layers=[{"layer": name, "after": len(keep)} for name in (*edit.tables, *edit.heads)],
    )


def make_edit(model: nn.Module, keep: tuple[int, ...]) -> KeepTokens:
    """The embedding of tokens, and the Linear layers that score every token. StageError if there is no such table."""
    name, table = _table(model, keep[-1] + 1)
    shape = (table.num_embeddings, table.embedding_dim)
    heads = tuple(
        other
        for other, module in model.named_modules()
        if isinstance(module, nn.Linear) and (module.out_features, module.in_features) == shape
    )
    return KeepTokens(tables=(name,), heads=heads if _scores_tokens(model) else (), keep=keep, config=_keys(model))


def _keys(model: nn.Module) -> tuple[str, ...]:
    config = getattr(model, "config", None)
    found = [] if config is None else [key for key, value in config.to_dict().items() if value is not None]
    return tuple(key for key in found if key == SIZE or key.endswith("_token_id"))


def _table(model: nn.Module, size: int) -> tuple[str, nn.Embedding]:
    """The Embedding with a row for every token: a Hugging Face model's own, else the largest one."""
    own = model.get_input_embeddings() if isinstance(model, PreTrainedModel) else model
    inside = {id(module) for module in own.modules()}  # an embedding that a pass has factorized holds one
    found = [
        (name, module)
        for name, module in model.named_modules()
        if id(module) in inside and isinstance(module, nn.Embedding) and module.num_embeddings >= size
    ]
    if not found:
        raise StageError(
            f"prune: {type(model).__name__} has no embedding of {size} tokens or more.",
            "Remove the pass from the recipe.",
        )
    return max(found, key=lambda pair: pair[1].num_embeddings)


def _scores_tokens(model: nn.Module) -> bool:
    """Has it a head with a row per token? Hugging Face models say so; of others, shapes decide."""
    return not isinstance(model, PreTrainedModel) or model.get_output_embeddings() is not None
