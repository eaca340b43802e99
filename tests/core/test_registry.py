"""Registries: look-ups that name the alternatives, lazy imports, entry points of installed packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.core.errors import UsageError
from pipeline.core.registry import Registry


def _install(folder: Path, name: str, value: str) -> None:
    """A real distribution with one entry point, as pip would leave it."""
    info = folder / "extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[edge_pipeline.thing]\n{name} = {value}\n")


def test_unknown_names_are_answered_with_the_near_ones() -> None:
    registry: Registry[type] = Registry("thing", {"prune": "m:a", "distill": "m:b"})
    with pytest.raises(UsageError) as caught:
        registry.get("prun")
    assert str(caught.value) == "Unknown thing 'prun'.\nDid you mean 'prune'?"


def test_extensions_are_imported_when_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazy_extension.py").write_text("VALUE = 41 + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry: Registry[int] = Registry("thing", {"lazy": "lazy_extension:VALUE"})
    assert "lazy" in registry
    assert "lazy_extension" not in sys.modules
    assert registry.get("lazy") == 42


def test_installed_packages_add_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "more", "math:pi")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry: Registry[float] = Registry("thing", {"e": "math:e"})
    assert list(registry) == ["e", "more"]
    assert 3.14 < registry.get("more") < 3.15


def test_a_name_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "e", "math:pi")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry: Registry[float] = Registry("thing", {"e": "math:e"})
    with pytest.raises(UsageError, match="thing 'e' is registered twice: math:e and math:pi"):
        registry.get("e")
