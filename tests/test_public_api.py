"""What `from pipeline import ...` gives."""

from __future__ import annotations

import importlib
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import pipeline
from pipeline.config.job import Job, Options
from pipeline.core.artifact import Artifact
from pipeline.quantize.plan import stored_formats


@pytest.mark.parametrize("name", pipeline.__all__)
def test_public_names_are_functions(name: str) -> None:
    """Also after everything behind them was imported: no submodule may take a public name."""
    importlib.import_module("pipeline.api")
    importlib.import_module("pipeline.cli.main")
    assert callable(getattr(pipeline, name))


def test_public_names_are_functions_in_a_fresh_process() -> None:
    code = (
        "from pipeline import check, compare, export, load_target, verify; assert callable(export), callable(compare)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_calls_are_typed_with_all_that_a_job_has() -> None:
    assert typing.get_type_hints(Options).keys() == Job.model_fields.keys() - {"model", "target"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pipeline' has no attribute 'exprot'"):
        _ = pipeline.exprot


def test_plans_in_the_store_that_say_no_formats_yet_are_read(tmp_path: Path) -> None:
    assert stored_formats(None) == ()
    assert stored_formats(Artifact(tmp_path, "quantize", "0" * 64, "0" * 64, {"left_in_float": []})) == ()
    row = {"name": "W", "node": "n", "op": "linear", "format": "fp16", "override": "", "megabytes": 1.0}
    (found,) = stored_formats(Artifact(tmp_path, "quantize", "0" * 64, "0" * 64, {"formats": [row]}))
    assert (found.name, found.format) == ("W", "fp16")
