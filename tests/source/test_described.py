"""What describes a value, in this process and in others."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

from pipeline.source.described import Describer


def described(value: Any) -> str:
    return Describer().of(value)


def test_plain_values_and_containers() -> None:
    assert described([1, "a", None, 2.0]) == "[1, 'a', None, 2.0]"
    assert described({"b": 1, "a": (2,)}) == "{'b': 1, 'a': [2]}"
    assert described({3, 1, 2}) == "set ['1', '2', '3']"


def test_installed_code_is_told_by_its_name() -> None:
    assert described(math.sqrt) == "math.sqrt"
    assert described(os.path.join) == "posixpath.join"


def test_what_holds_itself_ends() -> None:
    value: list[Any] = [1]
    value.append(value)
    assert described(value) == "[1, #0]"


def test_another_process_describes_alike() -> None:
    """Whatever the order of its sets, and wherever it keeps its objects."""
    code = """
from pipeline.source.described import Describer
class Rule:
    def __init__(self): self.words = {"one", "two", "three"}
    def __call__(self, word): return word in {"four", "five", "six"} and word not in self.words
print(Describer().of([Rule(), Rule, object()]))
"""
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
    assert "three" in texts.pop()
