from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from pipeline.bundle.chat import as_chat, chat_template
from pipeline.core.errors import UsageError

TEMPLATE = """{{ bos_token }}{% for message in messages %}
<|{{ message.role }}|>{{ message.content }}
{% endfor %}
{% if add_generation_prompt %}<|assistant|>{% endif %}"""


def test_the_prompt_is_the_first_message(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<s>"}, "eos_token": "</s>"}))
    assert as_chat(tmp_path, TEMPLATE, "Why?") == "<s><|user|>Why?\n<|assistant|>"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"chat_template": "a"}, "a"),
        ({"chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]}, "d"),
        ({"chat_template": 3}, None),
    ],
)
def test_where_a_template_stands(settings: object, expected: str | None, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert chat_template(tmp_path) == expected
    (tmp_path / "chat_template.jinja").write_text("file")
    assert chat_template(tmp_path) == "file"


def test_a_template_as_large_as_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("a" * 1_000_001)
    with pytest.raises(UsageError, match=r"'chat_template\.jinja' has 1,000,001 bytes; at most 1,000,000 are read\."):
        chat_template(tmp_path)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception('only tools') }}",
        "{% for message in messages %}{{ message.nothing.more }}{% endfor %}",
        "{% if %}",
        "{{ 1 // 0 }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10 ** 9) %}a{% endfor %}",
    ],
)
def test_a_template_that_fails_or_reaches_outside_is_an_error(template: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        as_chat(tmp_path, template, "Why?")
    assert f"The chat template of {tmp_path} fails" in raised.value.message
    assert "--no-chat" in raised.value.remedy


def test_a_template_is_told_the_day_that_is_given(tmp_path: Path) -> None:
    day = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    assert as_chat(tmp_path, "{{ strftime_now('%d %b %Y') }}", "Why?", day) == "01 Jan 2025"
