"""What an installation without the extra `export` says."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from pipeline.core import installed
from pipeline.core.errors import UsageError
from pipeline.core.installed import EXPORT, not_installed, require_export

REMEDY = "Install what exports need: pip install 'edge-pipeline[export]'"


def test_all_that_exports_need_is_what_the_extra_installs() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    named = {line.split("~")[0].split(">")[0].replace("-", "_") for line in project["optional-dependencies"]["export"]}
    assert named == set(EXPORT)


def test_here_nothing_is_missing() -> None:
    require_export()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None if name in ("torch", "scipy") else object())
    with pytest.raises(UsageError) as refused:
        require_export()
    assert refused.value.message == "This installation checks bundles: torch, scipy are not installed."
    assert refused.value.remedy == REMEDY


def test_an_import_deep_in_a_library_is_understood() -> None:
    try:
        try:
            raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")
        except ModuleNotFoundError as error:
            raise RuntimeError("could not load") from error
    except RuntimeError as error:
        found = not_installed(error)
    assert found is not None
    assert found.message == "This installation checks bundles: torch.nn is not installed."


def test_a_version_that_is_asked_for_is_understood() -> None:
    found = not_installed(importlib.metadata.PackageNotFoundError("onnx-ir"))
    assert found is not None
    assert found.message == "This installation checks bundles: onnx-ir is not installed."


@pytest.mark.parametrize("error", [ValueError("x"), ModuleNotFoundError("no", name="pyarrow"), ModuleNotFoundError()])
def test_other_errors_are_none_of_it(error: Exception) -> None:
    assert not_installed(error) is None
