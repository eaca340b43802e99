"""Language models: the probabilities of the next token behind every part of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import Field

from pipeline.core.errors import UsageError
from pipeline.core.types import Json, StrictModel
from pipeline.metrics.language import divergence, log_probabilities, perplexity
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output, OutputKind, Rows, unmasked
from pipeline.tasks.task import Task
from pipeline.tasks.token_classification import stretches

VALUES = 2**26
"""Log-probabilities that are kept of each model on an evaluation set: 134 MB."""
MOST_TOKENS, FEWEST_TOKENS = 2**15, 2**12
"""Tokens that an evaluation set is cut to: of small models, and of those that take long to run."""
_WORK = 1e12
"""Multiply-accumulates that one run over an evaluation set may take."""


class LanguageHead(StrictModel):
    """`tokens`: how many of an evaluation set are read, which bounds the time that large models take; `every`: of how
    many one is judged, which bounds the memory that large vocabularies take."""

    tokens: Annotated[int, Field(gt=0)] = MOST_TOKENS
    every: Annotated[int, Field(gt=0)] = 1


class LanguageModel(OutputKind):
    """Rows float16 [judged tokens, vocabulary]: log-probabilities of the token behind each `every`-th one.

    Judged against float by the Kullback-Leibler divergence and by the share of tokens that float puts first too;
    against the texts themselves by perplexity and by the share of tokens that come first.
    """

    name = "language_model"
    words = "the probabilities that a language model gives the next token, on given texts"
    wants = "floats [batch, tokens, vocabulary]"
    limits: ClassVar[dict[str, str]] = {"min_agreement": "agreement"}
    takes: ClassVar[tuple[LabelKind, ...]] = ("tags",)
    dtype: ClassVar[DTypeLike] = np.float16
    losses: ClassVar[Mapping[str, float]] = {"soft_labels": 1.0}
    names_classes = False
    numbers_labels = False
    unnamed_classes = False
    self_labelled = True
    head_model = LanguageHead

    def fits(self, output: Output) -> bool:
        return output.floats and output.rank in (None, 3) and 0 not in (output.shape or ())

    def found_head(self, config: Mapping[str, Any], metadata: Mapping[str, str], folder: Path) -> dict[str, Json]:  # noqa: ARG002
        sizes = {**config, **(config.get("text_config") or {})}
        words = _size(sizes, "vocab_size")
        tokens = read_tokens(_size(sizes, "num_hidden_layers", "n_layer"), _size(sizes, "hidden_size", "n_embd"), words)
        return {"tokens": tokens, "every": max(1, -(-words * tokens // VALUES))}

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:
        """Of the tokens whose next one the text has."""
        (logits,) = outputs.values()
        known = int(unmasked(inputs, logits.shape[:2])[0].sum())
        return log_probabilities(logits[0, judged_places(known, self.every)])

    @property
    def every(self) -> int:
        """Of how many tokens one is judged."""
        return LanguageHead.model_validate(dict(self.head)).every

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        agreement = float((reference.argmax(axis=1) == other.argmax(axis=1)).mean())
        scores = {"agreement": agreement, "kl": float(divergence(reference, other).mean())}
        return Judgement(scores, "agreement", 100.0 * (1.0 - agreement))

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        tokens = _joined(labels)
        if len(tokens) != len(rows):
            raise ValueError(f"{len(tokens)} tokens for {len(rows)} rows")
        if len(tokens) and tokens.max() >= rows.shape[1]:
            raise UsageError(
                f"The tokenizer makes the token {tokens.max()}; the model has {rows.shape[1]}.",
                "Give the model's own tokenizer: that one is of another vocabulary.",
            )
        right = float((rows.argmax(axis=1) == tokens).mean())
        return {"next_token_accuracy": 100.0 * right, "perplexity": perplexity(rows, tokens)}

    def drops(self, labels: Sequence[Any] | None, rows: Rows, reference: Rows) -> NDArray[np.float64]:
        of_float, own = reference.argmax(axis=1), rows.argmax(axis=1)
        if labels is None:
            return 100.0 * (of_float != own)
        tokens = _joined(labels)
        return 100.0 * ((of_float == tokens).astype(np.float64) - (own == tokens))

    def lists(self, labels: Sequence[Any]) -> LabelKind:  # noqa: ARG002
        return "tags"

    def samples_of(self, rows: int, labels: Sequence[Any] | None) -> NDArray[np.int64]:
        if labels is None:
            return stretches(rows)
        return np.repeat(np.arange(len(labels)), [len(tokens) for tokens in labels])


def _joined(labels: Sequence[Any]) -> NDArray[np.int64]:
    """The tokens of all samples, one after the other."""
    return np.concatenate([np.asarray(of_sample, np.int64) for of_sample in labels])


def read_tokens(layers: int, hidden: int, vocabulary: int) -> int:
    """How many tokens of an evaluation set a model of these sizes reads, by its weights: about 12 hidden^2 in a layer
    (Kaplan et al., arXiv 2001.08361, sec. 2.1), and a table."""
    weights = 12 * layers * hidden**2 + vocabulary * hidden
    return int(min(MOST_TOKENS, max(FEWEST_TOKENS, _WORK // max(weights, 1))))


def _size(config: Mapping[str, Any], *names: str) -> int:
    """The first size that is there; 0 if none is."""
    return next((config[name] for name in names if isinstance(config.get(name), int)), 0)


def judged_places(tokens: int, every: int) -> slice:
    """Of a text of so many tokens, those whose next one is predicted and judged."""
    return slice(min(every, max(tokens - 1, 1)) - 1, max(tokens - 1, 1), every)


def next_tokens(ids: NDArray[np.int64], every: int) -> list[int]:
    """What should come behind the judged tokens of a text `ids` [tokens]."""
    places = judged_places(len(ids), every)
    return [int(token) for token in ids[places.start + 1 : places.stop + 1 : every]]


LANGUAGE_MODEL = LanguageModel()
TEXT_GENERATION = Task(
    "text-generation",
    "AutoModelForCausalLM",
    "text",
    "text-en",
    "logits",
    LANGUAGE_MODEL.name,
    ("ForCausalLM", "LMHeadModel"),
    continues=True,
)
