"""Stage function `vocabulary`: count the tokens of a corpus and write the tokenizer that has only those that stay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.compress.prune.tokens.choose import all_ids, choose, count_tokens
from pipeline.compress.prune.tokens.rewrite import new_ids, require_same_tokens, rewrite_tokenizer, write_tokenizer
from pipeline.compress.prune.tokens.tokenizer_models import tokenizer_model
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.data.datasets import Dataset, load_training
from pipeline.data.encode import load_tokenizer, with_tokenizer

KEPT = "kept.json"
"""Beside the tokenizer: the old ids of the tokens that it kept, in the order of their new ones."""


def run(context: StageContext) -> StageMetadata:
    """Writes `kept.json`, `tokenizer.json` and what else of the tokenizer's files names tokens by their ids.

    StageError if nothing can go, or the tokenizer's kind is not known.
    """
    config = context.config
    model = with_tokenizer(context.model, context.inputs)
    tokenizer = load_tokenizer(model.tokenizer_folder, model.trust_remote_code)
    content = _content(tokenizer, model.tokenizer_folder)
    pieces = tokenizer_model(content["model"])
    ids = all_ids(content, pieces)
    texts = [text for spec in config["data"] for text in _texts(load_training(spec, None))]
    counts = count_tokens(tokenizer, texts, max(ids.values()) + 1, context.progress)
    keep = choose(content, pieces, counts, config["min_count"], config["keep_tokens"])
    if len(keep) == len(ids):
        raise StageError(
            f"prune: all {len(ids)} tokens are used {config['min_count']} times or more in the data, or needed.",
            "Raise min_count, give keep_tokens, or remove the pass from the recipe.",
        )
    new = new_ids(keep)
    write_tokenizer(context.out, model.tokenizer_folder, rewrite_tokenizer(content, pieces, new), new)
    (context.out / KEPT).write_text(json.dumps(keep), encoding="utf-8", newline="\n")
    require_same_tokens(context.out / "tokenizer.json", {token: new[old] for token, old in ids.items() if old in new})
    return {
        "tokens_before": len(ids),
        "tokens_after": len(keep),
        "texts": len(texts),
        "corpus_tokens": int(counts.sum()),
        "corpus_share_kept": round(float(counts[keep].sum() / max(counts.sum(), 1)), 6),
    }


def _content(tokenizer: Any, folder: Path) -> dict[str, Any]:
    """The tokenizer.json: the folder's own, else what transformers made of its other files."""
    if not getattr(tokenizer, "is_fast", False):
        raise StageError(
            f"prune: {type(tokenizer).__name__} has no tokenizer.json, so that its vocabulary cannot be trimmed.",
            "Save the tokenizer as a fast one, or remove the pass from the recipe.",
        )
    file = folder / "tokenizer.json"
    return json.loads(file.read_text(encoding="utf-8") if file.is_file() else tokenizer.backend_tokenizer.to_str())


def _texts(dataset: Dataset) -> Iterator[str]:
    """Both sides of pairs; the words of a sample as one text."""
    for sample in dataset.samples:
        if isinstance(sample, str):
            yield sample
        elif dataset.kind == "words":
            yield " ".join(sample)
        else:
            yield from sample
