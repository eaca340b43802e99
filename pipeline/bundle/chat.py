"""A model's chat template: what it was trained to read in place of a plain question."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, read_json_object, read_text, refused
from pipeline.source.model_config import CHAT_TEMPLATE, TOKENIZER_FILES

_SETTINGS = TOKENIZER_FILES[1]
_KEY = "chat_template"
NO_CHAT = "Correct chat_template in the model's folder, or add --no-chat to give the prompt as it is."
_LONGEST = 1_000_000
"""Characters of what a template makes of a prompt."""


def chat_template(folder: Path) -> str | None:
    """The template in `chat_template.jinja` or tokenizer_config.json; None if there is none."""
    if (file := folder / CHAT_TEMPLATE).is_file():
        return read_text(file, Limit.TEMPLATE)
    settings = _settings(folder)
    found = settings.get(_KEY)
    if isinstance(found, list):  # several by name
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def as_chat(
    folder: Path, template: str, prompt: str, day: datetime.datetime | None = None, remedy: str = NO_CHAT
) -> str:
    """The prompt as the first message of a user, with what begins the model's answer.

    The template is the model's, and runs in a sandbox, with what transformers gives templates (its documentation,
    "Chat templates"). UsageError if it fails.

    Args:
        folder: The model's or a bundle's; it has the special tokens.
        template: See `chat_template`.
        prompt: What the user says.
        day: The date that the template may write into the text; None: now.
        remedy: What to do where it fails.
    """
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"raise_exception": _raise, "strftime_now": (day or _now()).strftime}
    messages = [{"role": "user", "content": prompt}]
    names = {name: _text(_settings(folder).get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    with refused(f"The chat template of {folder} fails", remedy):
        given = {"messages": messages, "add_generation_prompt": True, **names}
        return _joined(environment.from_string(template).generate(given), remedy)


def _joined(pieces: Iterator[str], remedy: str) -> str:
    """What a template makes, but no more than `_LONGEST` characters."""
    made, total = [], 0
    for piece in pieces:
        made.append(piece)
        total += len(piece)
        if total > _LONGEST:
            raise UsageError(f"The chat template makes more than {_LONGEST:,} characters.", remedy)
    return "".join(made)


def _settings(folder: Path) -> Mapping[str, Any]:
    return read_json_object(folder / _SETTINGS) if (folder / _SETTINGS).is_file() else {}


def _text(token: Any) -> str:
    """A special token as tokenizer_config.json has it: a text, or an object with its `content`."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now() -> datetime.datetime:
    return datetime.datetime.now(tz=datetime.UTC)
