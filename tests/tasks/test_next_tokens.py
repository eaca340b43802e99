"""Next tokens under teacher forcing, on tables that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.tasks.next_tokens import DECODER_INPUTS
from pipeline.tasks.output_kind import Output
from pipeline.tasks.registry import OUTPUTS

PAD = 0
KIND = OUTPUTS.get("next_tokens").bound(("logits",), {"pad": PAD})


def rows(*texts: tuple[list[int], list[int]], kind=KIND):  # type: ignore[no-untyped-def]
    """Of (tokens given, tokens chosen) for each sample; logits of 6 tokens."""
    made = []
    for given, chosen in texts:
        logits = np.zeros((1, len(chosen), 6), np.float32)
        logits[0, np.arange(len(chosen)), chosen] = 1
        made.append(kind.rows({"logits": logits}, {DECODER_INPUTS: np.array([given])}))
    return kind.join(made)


def test_agreement_counts_tokens_and_whole_texts() -> None:
    """3 of 5 tokens are the same; one of two texts."""
    reference = rows(([0, 1, 2], [1, 2, 5]), ([0, 3], [3, 5]))
    other = rows(([0, 1, 2], [1, 4, 4]), ([0, 3], [3, 5]))
    judged = KIND.fidelity(reference, other)
    assert judged.scores == pytest.approx({"agreement": 3 / 5, "same_text": 1 / 2})
    assert (judged.primary, judged.drop) == ("agreement", pytest.approx(40.0))
    assert KIND.noise_db(reference, other) == pytest.approx(10 * np.log10(5 / 2))
    assert not KIND.same(reference, other) and KIND.same(reference, reference.copy())


def test_padding_at_the_end_does_not_count_and_the_start_token_does() -> None:
    """T5 starts with its padding token."""
    assert KIND.parts(rows(([0, 3, 0, 0], [3, 5, 1, 1])))[0][0].tolist() == [3, 5]
    assert KIND.parts(rows(([0], [4])))[0][0].tolist() == [4]
    unpadded = OUTPUTS.get("next_tokens").bound(("logits",), {})
    assert unpadded.parts(rows(([0, 3, 0], [3, 5, 1]), kind=unpadded))[0][0].tolist() == [3, 5, 1]


def test_labels_are_the_tokens_of_texts() -> None:
    found = rows(([0, 1, 2], [1, 2, 5]), ([0, 3], [3, 4]))
    assert KIND.label_kind(["a text"], pairs=False) == "texts"
    assert KIND.label_kind([[1, 2, 5], [3, 5]], pairs=False) == "tags"
    assert KIND.against([[1, 2, 5], [3, 5]], found) == {"token_accuracy": pytest.approx(80.0)}
    with pytest.raises(ValueError, match="another number of tokens"):
        KIND.against([[1, 2], [3, 5]], found)


def test_a_model_that_always_says_the_same_says_what_float_says_most_often() -> None:
    reference = rows(([0, 1, 2], [5, 5, 2]), ([0, 3], [5, 1]))
    constant = KIND.constant(reference)
    assert [part.tolist() for (part,) in KIND.parts(constant)] == [[5, 5, 5], [5, 5]]
    assert KIND.fidelity(reference, constant).scores["agreement"] == pytest.approx(3 / 5)


def test_what_can_be_judged() -> None:
    logits, states = Output("logits", "float32", (1, 3, 100)), Output("last_hidden_state", "float32", (1, 7, 16))
    assert KIND.judged([logits, states]) == ["logits"]
    assert not KIND.fits(Output("ids", "int64", (1, 3, 4)))
    assert KIND.read_head({}, {"pad_token_id": 7}, {}, None) == {"pad": 7}  # type: ignore[arg-type]
    assert KIND.read_head({}, {}, {}, None) == {}  # type: ignore[arg-type]
