"""`edge schema`: the shipped files fit, and mistakes that edge refuses do not."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pipeline.cli.main import main
from pipeline.cli.schema import SCHEMAS, schema_of

ROOT = Path(__file__).parents[1]


SHIPPED = [
    *(("recipe", file) for file in sorted(ROOT.glob("*/recipes/*.toml"))),
    *(("target", file) for file in sorted(ROOT.glob("targets/*.toml"))),
]


def mistakes(schema: str, record: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(schema_of(schema)).iter_errors(record)]


@pytest.mark.parametrize(("schema", "file"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_shipped_files_fit(schema: str, file: Path) -> None:
    assert mistakes(schema, tomllib.loads(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "recipe",
    [
        {"scheme": "w8a8"},
        {"title": "t", "scheme": {"weights": 8}},
        {"title": "t", "scheme": "w8a8", "passes": [{"pass": "prune", "ratoi": 0.5}]},
        {"title": "t", "scheme": "w8a8", "passes": [{"pass": "polish"}]},
        {"title": "t", "scheme": "w8a8", "passes": [{"pass": "prune", "unit": "layers", "ratio": "most"}]},
    ],
)
def test_mistakes_do_not(recipe: dict[str, Any]) -> None:
    assert mistakes("recipe", recipe)


def test_a_target_that_extends_another_needs_no_more() -> None:
    assert mistakes("target", {"extends": "phone", "budgets": {"bundle_mb": {"limit": 12}}}) == []
    assert mistakes("target", {"extends": "phone", "budget": {}})
    assert mistakes("target", {"budgets": {"bundle_mb": {"limit": 12}}})


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", name]) == 0
    Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))


def test_an_unknown_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "recepie"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: There is no schema 'recepie'.",
        "  Did you mean 'recipe'?",
    ]
