"""What `from pipeline import ...` gives."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import pipeline


@pytest.mark.parametrize("name", pipeline.__all__)
def test_public_names_are_functions(name: str) -> None:
    """Also after everything behind them was imported: no submodule may take a public name."""
    importlib.import_module("pipeline.api")
    importlib.import_module("pipeline.cli.main")
    assert callable(getattr(pipeline, name))


def test_public_names_are_functions_in_a_fresh_process() -> None:
    code = (
        "from pipeline import check, export, load_recipe, load_target, verify; assert callable(export), callable(check)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pipeline' has no attribute 'exprot'"):
        _ = pipeline.exprot
