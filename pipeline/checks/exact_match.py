"""Stage function: problems that a language model and its float model solve by writing, of those that have answers.

Perplexity and multiple choice hide broken generation: there the model only rates texts that are given.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.bundle.chat import as_chat, chat_template
from pipeline.compress import PREVIOUS_PASS
from pipeline.core.model_spec import LanguageSpec, ModelSpec
from pipeline.core.report_types import ExactMatch
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.data.datasets import Dataset, evenly, load_evaluation
from pipeline.data.encode import load_tokenizer
from pipeline.data.readers.problems import Problem
from pipeline.data.readers.tables import Columns
from pipeline.graph.files import Graphs, graph_megabytes, graphs_in
from pipeline.metrics.exact_match import solved
from pipeline.numerics.statistics import paired_interval
from pipeline.runtime.generation import most_likely, written
from pipeline.runtime.session import parallel_float_session, parallel_session

EXACT_MATCH = "exact_match"
"""The name of this stage, and of what it finds in the metadata."""
_WRITTEN = 256
"""Tokens that an answer may take, its reasoning included."""
_FEWEST, _MOST = 25, 200
_ANOTHER = ("Question:", "\n\n")
"""What a model without a chat template writes when it goes on to another question, or to another prompt."""
_MOST_READ = 8000.0
"""Megabytes of the float model, which are read for each token that it writes."""
_DAY = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
"""What chat templates that write a date are told: the same problem is the same prompt on every day."""
_REMEDY = "Correct chat_template in the model's folder, or give the problems as prompts (the column prompt)."
_LOOK_BACK = 16
"""Tokens that are read again to see whether a text has come so far."""


def run(context: StageContext) -> StageMetadata:
    """The metadata have a record `ExactMatch` of each set with problems; nothing is written."""
    columns = Columns.model_validate(context.config["columns"])
    sets = [one for spec in context.config["specs"] for one in load_evaluation(spec, columns) if one.kind == "problems"]
    asked = _Asked(context.model)
    found = [_of_set(context, asked, dataset) for dataset in sets]
    return {EXACT_MATCH: [one.model_dump(mode="json") for one in found]}


def _of_set(context: StageContext, asked: _Asked, dataset: Dataset) -> ExactMatch:
    prompts, too_long, reason = _prompts(context, asked, dataset)
    language = context.model.language
    assert language is not None  # noqa: S101  # the plan has this stage for language models only
    traced = context.inputs.get(PREVIOUS_PASS)
    left = (context.model.after_passes(traced.metadata) if traced else context.model).language or language
    of_float, own = (list(_right(context, asked, prompts, *of)) for of in (("float", language), ("model", left)))
    about = {"given": len(dataset.samples), "too_long": too_long, "chat": asked.chat and dataset.samples[0].asked}
    return compared(of_float, own, dataset=dataset.name, reason=reason, **about)


def _too_much_to_read(of_float: Graphs) -> str:
    """Why a float model solves nothing; empty if it does."""
    megabytes = graph_megabytes(of_float)
    if megabytes <= _MOST_READ:
        return ""
    return f"the float model has {megabytes / 1000:.1f} GB of weights, all of which it would read for each token"


def _prompts(context: StageContext, asked: _Asked, dataset: Dataset) -> tuple[list[_Prompt], int, str]:
    """Of problems that are spread evenly over the set, those that the context has room for; how many it has not; and
    why none are asked, if so."""
    if reason := _too_much_to_read(graphs_in(context.inputs["float"].path)):
        return [], 0, reason
    count = min(_MOST, max(_FEWEST, context.config["tokens"] // (_WRITTEN // 2)))
    chosen = evenly(dataset, min(count, len(dataset.samples))).samples
    language = context.model.language
    fitting = [prompt for prompt in map(asked.prompt, chosen) if language is not None and prompt.room(language)]
    reason = "" if fitting else f"all {len(chosen)} problems of {dataset.name} are longer than the context"
    return fitting, len(chosen) - len(fitting), reason


def _right(
    context: StageContext, asked: _Asked, prompts: Sequence[_Prompt], role: str, language: LanguageSpec
) -> Iterator[bool]:
    """Of each prompt whether the graph of a role solves its problem."""
    if not prompts:
        return
    open_graphs = parallel_float_session if role == "float" else parallel_session
    session = open_graphs(graphs_in(context.inputs[role].path))
    for number, prompt in enumerate(prompts, start=1):
        tokens = islice(written(session, language, prompt.ids, most_likely), _WRITTEN)
        yield solved(asked.text(tokens, prompt.end), prompt.answers)
        context.progress(number + (0 if role == "float" else len(prompts)), 2 * len(prompts))


def compared(of_float: Sequence[bool], own: Sequence[bool], **about: Any) -> ExactMatch:
    """What both models solved of the same problems. `about`: the record's fields that say which these are."""
    lost = sum(before and not now for before, now in zip(of_float, own, strict=True))
    gained = sum(now and not before for before, now in zip(of_float, own, strict=True))
    low, high = (100.0 * end for end in paired_interval(lost, gained, len(own)))
    asked, right, right_float = len(own), sum(own), sum(of_float)
    return ExactMatch(problems=asked, right=right, right_float=right_float, lost=lost, low=low, high=high, **about)


def check_template(folder: Path, problem: Problem) -> None:
    """UsageError if the chat template of a model's folder fails on a question."""
    if problem.asked and (template := chat_template(folder)) is not None:
        _as_chat(folder, template, problem)


def _as_chat(folder: Path, template: str, problem: Problem) -> str:
    return as_chat(folder, template, problem.text, _DAY, _REMEDY)


@dataclass(frozen=True)
class _Prompt:
    """`ids`: what the model is given; `end`: what ends its answer, if it writes that; `answers`: the right ones."""

    ids: list[int]
    end: str
    answers: tuple[str, ...]

    def room(self, language: LanguageSpec) -> bool:
        """Whether the context has room for the prompt and an answer."""
        return 0 < len(self.ids) <= language.longest - min(_WRITTEN, language.longest // 2)


class _Asked:
    """How a model is given problems, and its answers read: with its tokenizer, and its chat template if it has one."""

    def __init__(self, model: ModelSpec) -> None:
        self._folder = model.tokenizer_folder
        self._tokenizer: Any = load_tokenizer(self._folder, model.trust_remote_code)
        self._template = chat_template(self._folder)
        self.chat = self._template is not None

    def prompt(self, problem: Problem) -> _Prompt:
        if problem.asked and self._template is not None:
            text, end = _as_chat(self._folder, self._template, problem), ""
        else:
            text, end = problem.prompt, _ANOTHER[0] if problem.asked else _ANOTHER[1]
        templated = problem.asked and self.chat
        ids = self._tokenizer(text, add_special_tokens=not templated, verbose=False)["input_ids"]
        return _Prompt(list(ids), end, problem.answers)

    def text(self, tokens: Iterator[int], end: str) -> str:
        """The text of the tokens, up to `end`; no more of them are taken then."""
        ids: list[int] = []
        for token in tokens:
            ids.append(token)
            if end and end in self._decoded(ids[-_LOOK_BACK:]).lstrip():
                break
        return self._decoded(ids).lstrip().partition(end)[0] if end else self._decoded(ids)

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))
