"""Which tokens stay and what becomes of the tokenizer: hand-made vocabularies of every kind, and any text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from pipeline.compress.prune.tokens.choose import all_ids, choose
from pipeline.compress.prune.tokens.rewrite import new_ids, rewrite_config, rewrite_settings, rewrite_tokenizer
from pipeline.compress.prune.tokens.tokenizer_models import tokenizer_model
from pipeline.core.errors import StageError

Content = dict[str, Any]
CORPUS = [
    "the low lower lowest newer",
    "a new wide river",
    "the river is lower now",
    "newest and widest, wider ways",
] * 3
UNKNOWN = "[UNK]"
TEXT = st.text(st.sampled_from("abdehilnorstvwy ,"), max_size=24)


def content_of(tokenizer: Tokenizer) -> Content:
    return json.loads(tokenizer.to_str())


def word_piece(*pieces: str) -> Content:
    ids = {piece: index for index, piece in enumerate(("[UNK]", "[CLS]", *pieces))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    tokenizer.add_special_tokens(["[UNK]", "[CLS]"])
    return content_of(tokenizer)


def trained_word_piece() -> Content:
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[UNK]"]))
    content = content_of(tokenizer)
    # the trainer leaves out letters inside words that only ever start one
    for letter in sorted({piece for piece in content["model"]["vocab"] if len(piece) == 1}):
        content["model"]["vocab"].setdefault(f"##{letter}", len(content["model"]["vocab"]))
    return content


def bytes_bpe() -> Content:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet)
    )
    return content_of(tokenizer)


def unigram() -> Content:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>"], **{"unk_token": "<unk>"})
    tokenizer.train_from_iterator(CORPUS, trainer)
    return content_of(tokenizer)


def counts_of(content: Content, texts: list[str]) -> np.ndarray:
    tokenizer, counts = Tokenizer.from_str(json.dumps(content)), np.zeros(len(all_ids_of(content)), np.int64)
    for text in texts:
        np.add.at(counts, tokenizer.encode(text, add_special_tokens=False).ids, 1)
    return counts


def all_ids_of(content: Content) -> dict[str, int]:
    return all_ids(content, tokenizer_model(content["model"]))


def trim(content: Content, texts: list[str], **amount: Any) -> tuple[Content, list[int]]:
    pieces = tokenizer_model(content["model"])
    keep = choose(content, pieces, counts_of(content, texts), amount.get("min_count", 1), amount.get("keep_tokens"))
    return rewrite_tokenizer(content, pieces, new_ids(keep)), keep


def test_word_pieces_by_hand() -> None:
    """`low` and `##er` are used; `lower` is longer and would be taken, so it is what "lower" uses; `##est` and `new`
    go. Letters stay in both forms; the ids close up; the post-processor follows."""
    letters = [*"elnorstw", *(f"##{letter}" for letter in "elnorstw")]
    content = word_piece("new", "low", *letters, "##er", "lower", "##est")
    smaller, keep = trim(content, ["low lower slower"])  # s, ##l, ##o, ##w, ##er
    assert keep == [0, 1, *range(3, 22)]
    assert {piece for piece in content["model"]["vocab"] if piece not in smaller["model"]["vocab"]} == {"new", "##est"}
    assert smaller["model"]["vocab"]["low"] == 2
    assert smaller["model"]["vocab"]["lower"] == 20
    encoded = Tokenizer.from_str(json.dumps(smaller)).encode("lower newest")
    assert encoded.tokens == ["[CLS]", "lower", "n", "##e", "##w", "##e", "##s", "##t"]
    assert encoded.ids[:2] == [1, 20]


def test_pieces_with_letters_of_their_own_stay() -> None:
    """`##x` is no piece, so `ax` would be unknown without its row."""
    _, keep = trim(word_piece("a", "b", "##a", "##b", "ax", "ab"), ["b"])
    assert keep == [0, 1, 2, 3, 4, 5, 6]  # all but `ab`


def test_merges_by_hand() -> None:
    """abc = ab + c needs ab; a + bc gives it too, so bc stays as well; cd goes with its merge."""
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("c", "d")]
    vocabulary = {piece: index for index, piece in enumerate(["a", "b", "c", "d", "ab", "bc", "cd", "abc"])}
    content = content_of(Tokenizer(models.BPE(vocabulary, merges)))
    smaller, keep = trim(content, ["abc"])
    assert keep == [0, 1, 2, 3, 4, 5, 7]
    assert [tuple(merge) for merge in smaller["model"]["merges"]] == merges[:4]
    assert smaller["model"]["vocab"]["abc"] == 6
    assert Tokenizer.from_str(json.dumps(smaller)).encode("abccd").tokens == ["abc", "c", "d"]


def test_merges_written_as_texts_and_with_prefixes() -> None:
    model = {
        "type": "BPE",
        "continuing_subword_prefix": "##",
        "vocab": {"a": 0, "##b": 1, "ab": 2},
        "merges": ["a ##b"],
    }
    assert tokenizer_model(model).merge_parents() == {"ab": {"a", "##b"}}
    assert tokenizer_model(model).kept({0: 0, 1: 1})["merges"] == []


def test_unigrams_by_hand() -> None:
    """Letters, the unknown piece and the one of the lowest score (-9, from which an unknown letter's is counted) stay;
    `xy` stays, since y has no piece; `ab` goes unless it is used."""
    vocabulary = [("<unk>", 0.0), ("a", -3.0), ("b", -3.0), ("x", -4.0), ("ab", -2.0), ("xy", -5.0), ("ba", -9.0)]
    content = content_of(Tokenizer(models.Unigram(vocabulary, unk_id=0)))
    smaller, keep = trim(content, ["b"])
    assert keep == [0, 1, 2, 3, 5, 6]
    assert smaller["model"]["unk_id"] == 0
    assert [piece for piece, _ in smaller["model"]["vocab"]] == ["<unk>", "a", "b", "x", "xy", "ba"]
    assert trim(content, ["ab"])[1] == list(range(7))


@pytest.mark.parametrize("make", [trained_word_piece, bytes_bpe, unigram])
def test_something_goes_and_ids_close_up(make: Callable[[], Content]) -> None:
    content = make()
    smaller, keep = trim(content, ["the lower river"])
    assert len(keep) < len(all_ids_of(content))
    names = {index: token for token, index in all_ids_of(content).items()}
    read = Tokenizer.from_str(json.dumps(smaller)).get_vocab()
    assert read == {names[old]: new for new, old in enumerate(keep)}


@pytest.mark.parametrize("make", [trained_word_piece, bytes_bpe, unigram])
@given(text=TEXT)
def test_texts_of_kept_tokens_get_the_same_pieces(make: Callable[[], Content], text: str) -> None:
    before, after, kept = _both(make)
    tokens, others = before.encode(text).tokens, after.encode(text).tokens
    if kept.issuperset(tokens):
        assert others == tokens
    if "[UNK]" not in tokens:
        assert "".join(others).replace("##", "") == "".join(tokens).replace("##", "")


@pytest.mark.parametrize("make", [trained_word_piece, bytes_bpe, unigram])
@given(text=st.text(max_size=12))
def test_what_could_be_encoded_still_can(make: Callable[[], Content], text: str) -> None:
    before, after, _ = _both(make)
    unknown = {"[UNK]", "<unk>"}
    if not unknown & set(before.encode(text).tokens):
        assert not unknown & set(after.encode(text).tokens)


_MADE: dict[Callable[[], Content], tuple[Tokenizer, Tokenizer, set[str]]] = {}


def _both(make: Callable[[], Content]) -> tuple[Tokenizer, Tokenizer, set[str]]:
    if make not in _MADE:
        content = make()
        smaller, _ = trim(content, ["the lower river"])
        read = [Tokenizer.from_str(json.dumps(one)) for one in (content, smaller)]
        _MADE[make] = (read[0], read[1], set(read[1].get_vocab()))
    return _MADE[make]


def test_the_most_used_tokens_fill_what_is_allowed() -> None:
    """a, b, ##a, ##b and the special ones are 6; of ab (3 times), ba (2) and aab (1) two fit into 8."""
    content = word_piece("a", "b", "##a", "##b", "ab", "ba", "aab")
    texts = ["ab ab ab ba ba aab"]
    assert trim(content, texts, keep_tokens=8)[1] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert trim(content, texts, keep_tokens=7)[1] == [0, 1, 2, 3, 4, 5, 6]
    assert trim(content, texts, min_count=3)[1] == [0, 1, 2, 3, 4, 5, 6]
    with pytest.raises(StageError) as caught:
        trim(content, texts, keep_tokens=5)
    assert caught.value.message == (
        "prune: keep_tokens = 5 is less than the 6 special tokens, characters and bytes that stay so that any text can "
        "be encoded."
    )


def test_a_tokenizer_of_another_kind() -> None:
    with pytest.raises(StageError) as caught:
        tokenizer_model({"type": "WordLevel"})
    assert caught.value.message == "prune: the tokenizer is of the kind WordLevel, whose vocabulary cannot be trimmed."


def test_everything_that_names_a_token_by_its_id_follows() -> None:
    new = {0: 0, 2: 1, 7: 2}
    pair = {"type": "BertProcessing", "sep": ["[SEP]", 7], "cls": ["[CLS]", 2]}
    content = word_piece("a")
    content |= {"post_processor": {"type": "Sequence", "processors": [pair]}, "padding": {"pad_id": 7}}
    content["added_tokens"] = [{"id": 7, "content": "[SEP]"}]
    smaller = rewrite_tokenizer(content, tokenizer_model(content["model"]), new)
    assert smaller["post_processor"]["processors"] == [
        {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}
    ]
    assert (smaller["padding"], smaller["added_tokens"]) == ({"pad_id": 2}, [{"id": 2, "content": "[SEP]"}])
    settings = {"added_tokens_decoder": {"2": {"content": "[CLS]"}, "3": {"content": "gone"}}, "model_max_length": 9}
    assert rewrite_settings(settings, new) == {
        "added_tokens_decoder": {"1": {"content": "[CLS]"}},
        "model_max_length": 9,
    }
    config = {"vocab_size": 9, "pad_token_id": 7, "eos_token_id": [0, 2], "bos_token_id": None, "hidden_size": 7}
    assert rewrite_config(config, new) == {
        **{"vocab_size": 3, "pad_token_id": 2, "eos_token_id": [0, 1], "bos_token_id": None, "hidden_size": 7}
    }
