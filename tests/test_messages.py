"""What messages advise must exist: flags, schemes and recipes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

import pipeline
from pipeline.cli.commands import app
from pipeline.config.loading import search_folders
from pipeline.quantize.schemes import SCHEMES

SOURCES = sorted(Path(pipeline.__file__).parent.rglob("*.py"))
OF_OTHER_PROGRAMS = {"--force-reinstall", "--no-deps"}
FLAG = re.compile(r"(?<![\w(-])--[a-z][a-z-]+(?![\w-]*[:}])")  # not the variables of style sheets
SCHEME = re.compile(r"\b(?:w\d+(?:a\d+)?(?:-dynamic)?|fp\d+)\b(?!\.org)")


def messages(path: Path) -> Iterator[str]:
    """Every text of a file but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.value


@pytest.fixture(scope="module")
def flags() -> set[str]:
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    options = [option for command in commands for p in command.params for option in [*p.opts, *p.secondary_opts]]
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
