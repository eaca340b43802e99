"""A tokenizer's files with fewer tokens. Everything that names a token by its id follows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.compress.prune.tokens.tokenizer_models import TokenizerModel
from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError


def new_ids(keep: Sequence[int]) -> dict[int, int]:
    """Old id -> new id: the tokens stay in order."""
    return {old: new for new, old in enumerate(keep)}


def rewrite_tokenizer(content: Mapping[str, Any], pieces: TokenizerModel, new: Mapping[int, int]) -> dict[str, Any]:
    """A tokenizer.json with only the tokens that are keys of `new`."""
    result = {
        **content,
        "model": pieces.kept(new),
        "added_tokens": [{**token, "id": new[token["id"]]} for token in content["added_tokens"]],
        "post_processor": _processor(content.get("post_processor"), new),
    }
    if content.get("padding"):
        result["padding"] = {**content["padding"], "pad_id": new[content["padding"]["pad_id"]]}
    return result


def _processor(table: Any, new: Mapping[int, int]) -> Any:
    """The post-processor puts special tokens in by their ids."""
    if not isinstance(table, dict):
        return table
    changed = dict(table)
    if table.get("type") == "Sequence":
        changed["processors"] = [_processor(one, new) for one in table["processors"]]
    if table.get("type") == "TemplateProcessing":
        entries = table["special_tokens"].items()
        changed["special_tokens"] = {key: {**one, "ids": [new[index] for index in one["ids"]]} for key, one in entries}
    for key in ("sep", "cls"):
        if isinstance(table.get(key), list):  # [token, id], of BertProcessing and RobertaProcessing
            changed[key] = [table[key][0], new[table[key][1]]]
    return changed


def rewrite_settings(settings: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """A tokenizer_config.json, whose added tokens are listed by id."""
    if "added_tokens_decoder" not in settings:
        return dict(settings)
    listed = settings["added_tokens_decoder"].items()
    return {
        **settings,
        "added_tokens_decoder": {str(new[int(index)]): token for index, token in listed if int(index) in new},
    }


def rewrite_config(config: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """A model's config: the size of its vocabulary and the ids of its special tokens."""
    changed = {key: renumbered(value, new) for key, value in config.items() if key.endswith("_token_id")}
    return {**config, **changed, **({"vocab_size": len(new)} if "vocab_size" in config else {})}


def renumbered(value: Any, new: Mapping[int, int]) -> Any:
    """The new id of one token or of several; None for one that is gone, or that is None."""
    if isinstance(value, list):
        return [new[index] for index in value if index in new]
    return new.get(value) if isinstance(value, int) else value


def write_tokenizer(out: Path, folder: Path, content: dict[str, Any], new: dict[int, int]) -> None:
    """The new tokenizer.json with its settings, and the config, from which transformers tells the tokenizer's class."""
    (out / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8", newline="\n")
    for name, rewrite in (("tokenizer_config.json", rewrite_settings), ("config.json", rewrite_config)):
        if (folder / name).is_file():
            changed = rewrite(json.loads((folder / name).read_text(encoding="utf-8")), new)
            (out / name).write_text(pretty_json(changed), encoding="utf-8", newline="\n")
    special = folder / "special_tokens_map.json"
    if special.is_file():
        (out / special.name).write_bytes(special.read_bytes())


def require_same_tokens(file: Path, expected: dict[str, int]) -> None:
    """StageError if the tokenizers library reads other ids out of the file than were meant."""
    from tokenizers import Tokenizer  # noqa: PLC0415  # only this stage needs it

    found = Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
    wrong = [token for token in found.keys() | expected.keys() if found.get(token) != expected.get(token)]
    if wrong:
        raise StageError(
            f"prune: the trimmed tokenizer gives {wrong[0]!r} the id {found.get(wrong[0])} instead of "
            f"{expected.get(wrong[0])}.",
            "Its added tokens are numbered in a way that cannot be kept; remove the pass from the recipe.",
        )
