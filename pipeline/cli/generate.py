"""`edge generate`: a bundle of a language model writes in the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import typer
from tokenizers import Tokenizer

from pipeline.bundle.chat import as_chat, chat_template
from pipeline.bundle.manifest import read_manifest
from pipeline.bundle.records import bundle_graphs, read_metadata, require_runtime
from pipeline.core.errors import UsageError
from pipeline.core.untrusted import refused
from pipeline.runtime.generation import sampled, written
from pipeline.runtime.session import make_session

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a decoder of bytes writes for a character whose bytes are not all there."""


@dataclass(frozen=True)
class Settings:
    """How a text is continued."""

    most: int
    temperature: float
    top_p: float
    seed: int
    chat: bool
    threads: int | None


def run(bundle: Path, prompt: str, settings: Settings) -> None:
    """Print the answer as it is written, and on stderr how fast that was."""
    read_manifest(bundle)
    require_runtime(bundle)
    metadata = read_metadata(bundle)
    if metadata.language is None:
        raise UsageError(
            f"The bundle {bundle} is of the task {metadata.task}; edge generate takes those of text-generation.",
            "Its README.md says how it is run.",
        )
    runtime = metadata.session_runtime()
    runtime = runtime if settings.threads is None else runtime.model_copy(update={"threads": settings.threads})
    tokenizer = _tokenizer(bundle)
    ids = _encoded(bundle, tokenizer, prompt, settings.chat)
    session = make_session(bundle_graphs(bundle), runtime)
    choose = sampled(settings.temperature, settings.top_p, settings.seed)
    clock = _Clock(islice(written(session, metadata.language, ids, choose), settings.most))
    for part in _parts(tokenizer, clock):
        typer.echo(part, nl=False)
    typer.echo()
    typer.echo(clock.words(len(ids)), err=True)


def _tokenizer(bundle: Path) -> Tokenizer:
    file = bundle / "tokenizer.json"
    if not file.is_file():
        raise UsageError(
            f"The bundle {bundle} has no tokenizer.json, so that a prompt cannot become tokens here.",
            "Add it to the model's folder and export it again.",
        )
    with refused(f"tokenizer.json of {bundle} is none that the library tokenizers reads", "Export the bundle again."):
        return Tokenizer.from_file(str(file))


def _encoded(bundle: Path, tokenizer: Tokenizer, prompt: str, chat: bool) -> list[int]:
    template = chat_template(bundle) if chat else None
    text = prompt if template is None else as_chat(bundle, template, prompt)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=template is None).ids
    if not ids:
        raise UsageError("The prompt has no tokens.", "Write something to continue.")
    return ids


class _Clock:
    """Tokens as they come, and when they did."""

    def __init__(self, tokens: Iterator[int]) -> None:
        self._tokens, self._begin = tokens, time.perf_counter()
        self._times: list[float] = []

    def __iter__(self) -> Iterator[int]:
        for token in self._tokens:
            self._times.append(time.perf_counter() - self._begin)
            yield token

    def words(self, prompt: int) -> str:
        """`23 tokens behind a prompt of 9; first after 12 ms, then 180 tokens/s`."""
        if not self._times:
            return f"no token behind a prompt of {prompt}: the model ends the text at once"
        first = f"{len(self._times)} tokens behind a prompt of {prompt}; the first after {1e3 * self._times[0]:.3g} ms"
        if len(self._times) < 2:
            return first
        rate = (len(self._times) - 1) / (self._times[-1] - self._times[0])
        return f"{first}, then {rate:.3g} tokens/s on this machine"


def _parts(tokenizer: Tokenizer, tokens: _Clock) -> Iterator[str]:
    """Pieces of text, each as soon as its characters are whole."""
    ids: list[int] = []
    shown = ""
    for token in tokens:
        ids.append(token)
        text = _text(tokenizer, ids)
        if not text.endswith(_UNFINISHED):
            yield text[len(shown) :]
            shown = text
    yield _text(tokenizer, ids)[len(shown) :]


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))
