"""What messages advise must exist: flags, schemes and recipes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import pipeline
from pipeline.cli.commands import app
from pipeline.config.loading import search_folders
from pipeline.quantize.schemes import SCHEMES

SOURCES = sorted(Path(pipeline.__file__).parent.rglob("*.py"))
PIP = {
    "--force-reinstall",
    "--no-deps",
    "--quiet",
    "--only-binary",
    "--python-version",
    "--implementation",
    "--platform",
}
OF_OTHER_PROGRAMS = PIP | {"--no-install-recommends", "--download-only", "--print-architecture", "--library-path"}
FLAG = re.compile(r"(?<![\w(-])--[a-z][a-z-]+(?![\w-]*[:}])")  # not the variables of style sheets
SCHEME = re.compile(r"\b(?:w\d+(?:a\d+)?(?:-dynamic|-npu)?|fp\d+)\b(?!\.org)")


def messages(path: Path) -> Iterator[str]:
    """Every text of a file but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.value


def parameters(command: Any) -> Iterator[Any]:
    """Of a command and of those below it."""
    yield from command.params
    for below in getattr(command, "commands", {}).values():
        yield from parameters(below)


@pytest.fixture(scope="module")
def flags() -> set[str]:
    options = [option for p in parameters(typer.main.get_command(app)) for option in [*p.opts, *p.secondary_opts]]
    ours = {option for option in options if option.startswith("--")}
    return ours | {"--help", "--version", "--install-completion", "--show-completion"}


def test_flags_that_messages_name_exist(flags: set[str]) -> None:
    known = flags | OF_OTHER_PROGRAMS | {"--per-tensor"}
    odd = {(path.name, flag) for path in SOURCES for text in messages(path) for flag in FLAG.findall(text)}
    assert {flag for _, flag in odd} >= {"--calibration-samples", "--nodes-to-exclude", "--block-size"}
    assert {(name, flag) for name, flag in odd if flag not in known} == set()


def test_schemes_that_messages_name_exist() -> None:
    recipes = {path.stem for folder in search_folders("recipes") for path in folder.glob("*.toml")}
    odd = {(path.name, found) for path in SOURCES for text in messages(path) for found in SCHEME.findall(text)}
    assert {(name, found) for name, found in odd if found not in SCHEMES and found not in recipes} == set()
