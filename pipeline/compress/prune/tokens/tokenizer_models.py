"""The pieces of a tokenizer's model (the `model` table of its tokenizer.json): which ones nothing works without, and
the model with fewer of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.core.errors import StageError


class TokenizerModel(ABC):
    """`model` is not changed."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self.content = model

    @abstractmethod
    def ids(self) -> dict[str, int]:
        """Every piece's token id."""

    @abstractmethod
    def required_tokens(self) -> set[str]:
        """The pieces without which a text could not be encoded that can be now."""

    def merge_parents(self) -> Mapping[str, set[str]]:
        """The pieces that a piece is put together from, where it is."""
        return {}

    @abstractmethod
    def kept(self, new: Mapping[int, int]) -> dict[str, Any]:
        """The model with only the pieces whose ids are keys of `new`, under the ids that it gives them."""


class WordPiece(TokenizerModel):
    """The longest piece that fits is taken first, so that a text whose pieces all stay is cut as before: the longest of
    all is still the longest of fewer."""

    def ids(self) -> dict[str, int]:
        return dict(self.content["vocab"])

    def required_tokens(self) -> set[str]:
        """Single characters at the start of a word and inside one; pieces with a character that has no such piece."""
        prefix, pieces = self.content["continuing_subword_prefix"], self.content["vocab"]
        first = {piece for piece in pieces if len(piece) == 1}
        inside = {piece[len(prefix) :] for piece in pieces if piece.startswith(prefix)}
        inside = {rest for rest in inside if len(rest) == 1}

        def spelled(piece: str) -> bool:
            if piece.startswith(prefix) and len(piece) > len(prefix):
                return all(character in inside for character in piece[len(prefix) :])
            return piece[0] in first and all(character in inside for character in piece[1:])

        single = first | {f"{prefix}{character}" for character in inside}
        return {self.content["unk_token"]} | single | {piece for piece in pieces if not spelled(piece)}

    def kept(self, new: Mapping[int, int]) -> dict[str, Any]:
        return {**self.content, "vocab": _renumbered(self.content["vocab"], new)}


class Bpe(TokenizerModel):
    """Byte-pair merges in order of rank. A piece that stays keeps every piece that it can be merged from, and those
    theirs: the merges of a text whose pieces all stay are all still there, in the same order."""

    def ids(self) -> dict[str, int]:
        return dict(self.content["vocab"])

    def required_tokens(self) -> set[str]:
        """All that no merge gives: characters or bytes."""
        return set(self.content["vocab"]) - {result for _, _, result in self._merges()}

    def merge_parents(self) -> Mapping[str, set[str]]:
        parts: dict[str, set[str]] = defaultdict(set)
        for left, right, result in self._merges():
            parts[result] |= {left, right}
        return parts

    def kept(self, new: Mapping[int, int]) -> dict[str, Any]:
        pieces = _renumbered(self.content["vocab"], new)
        triples = zip(self.content["merges"], self._merges(), strict=True)
        merges = [merge for merge, used in triples if all(piece in pieces for piece in used)]
        return {**self.content, "vocab": pieces, "merges": merges}

    def _merges(self) -> Iterable[tuple[str, str, str]]:
        """(left, right, result); older files write a merge as one text."""
        inside = len(self.content.get("continuing_subword_prefix") or "")
        for merge in self.content["merges"]:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            yield left, right, left + right[inside:]


class Unigram(TokenizerModel):
    """The segmentation of the best total score; it stays the best if its pieces all stay."""

    def ids(self) -> dict[str, int]:
        return {piece: index for index, (piece, _) in enumerate(self.content["vocab"])}

    def required_tokens(self) -> set[str]:
        """Single characters, bytes, pieces with a character that has no piece of its own, the unknown one, and the one
        of the lowest score, from which the score of an unknown character is counted."""
        pieces = [piece for piece, _ in self.content["vocab"]]
        single = {piece for piece in pieces if len(piece) == 1}
        unknown = {pieces[self.content["unk_id"]]} if self.content.get("unk_id") is not None else set()
        lowest = min(self.content["vocab"], key=lambda entry: float(entry[1]))[0]
        spelled_in_bytes = bool(self.content.get("byte_fallback"))
        needed = {piece for piece in pieces if not spelled_in_bytes and not single.issuperset(piece)}
        return single | unknown | {lowest} | needed | {piece for piece in pieces if _is_byte(piece)}

    def kept(self, new: Mapping[int, int]) -> dict[str, Any]:
        pieces = [entry for index, entry in enumerate(self.content["vocab"]) if index in new]
        unknown = self.content.get("unk_id")
        return {**self.content, "vocab": pieces, "unk_id": None if unknown is None else new[unknown]}


KINDS: dict[str, type[TokenizerModel]] = {"WordPiece": WordPiece, "BPE": Bpe, "Unigram": Unigram}


def tokenizer_model(model: Mapping[str, Any]) -> TokenizerModel:
    """StageError for a model that is not known here."""
    kind = str(model.get("type"))
    if kind not in KINDS:
        raise StageError(
            f"prune: the tokenizer is of the kind {kind}, whose vocabulary cannot be trimmed.",
            f"Allowed: {', '.join(KINDS)}. Remove the pass from the recipe.",
        )
    return KINDS[kind](model)


def _renumbered(vocabulary: Mapping[str, int], new: Mapping[int, int]) -> dict[str, int]:
    return {piece: new[index] for piece, index in vocabulary.items() if index in new}


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
