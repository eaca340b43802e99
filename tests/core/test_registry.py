"""Registries: look-ups that name the alternatives, lazy imports, entry points of installed packages, broken ones."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pipeline.core.errors import ExitCode, UsageError
from pipeline.core.registry import Registry


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Leaves real distributions with one entry point each on the path, as pip would; with `code`, also a module."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, value: str, package: str = "extra", code: str | None = None) -> None:
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[edge_pipeline.thing]\n{name} = {value}\n")
        if code is not None:
            module = value.partition(":")[0]
            (tmp_path / f"{module}.py").write_text(code)
            monkeypatch.delitem(sys.modules, module, raising=False)

    return make


def test_unknown_names_are_answered_with_the_near_ones() -> None:
    registry: Registry[type] = Registry("thing", {"prune": "m:a", "distill": "m:b"})
    with pytest.raises(UsageError) as caught:
        registry.get("prun")
    assert str(caught.value) == "Unknown thing 'prun'.\nDid you mean 'prune'?"
    with pytest.raises(ValueError, match=r"unknown thing 'prun'. Did you mean 'prune'\?"):
        registry.member("prun")
    assert registry.member("prune") == "prune"


def test_a_kind_is_the_name_of_a_group() -> None:
    with pytest.raises(ValueError, match="'my things' cannot be part of an entry-point group"):
        Registry("my things", {})


def test_extensions_are_imported_when_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazy_extension.py").write_text("VALUE = 41 + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry: Registry[int] = Registry("thing", {"lazy": "lazy_extension:VALUE"})
    assert "lazy" in registry
    registry.require("lazy")
    assert "lazy_extension" not in sys.modules
    assert registry.get("lazy") == 42


def test_installed_packages_add_theirs(install) -> None:
    install("more", "math:pi")
    registry: Registry[float] = Registry("thing", {"e": "math:e"})
    assert list(registry) == ["e", "more"]
    assert 3.14 < registry.get("more") < 3.15
    assert registry.packages("more", "e", "more") == ("extra",)
    assert registry.where("more") == "math:pi of the package extra 1.0"


def test_a_name_is_taken_once(install) -> None:
    install("e", "math:pi")
    registry: Registry[float] = Registry("thing", {"e": "math:e", "tau": "math:tau"})
    with pytest.raises(UsageError, match="thing 'e' is registered twice: math:e and math:pi") as caught:
        registry.get("e")
    assert caught.value.message.endswith("of the package extra 1.0.")
    assert list(registry.usable()) == ["tau"]


def test_two_packages_of_one_name_are_both_named(install) -> None:
    install("pi", "math:pi", "first")
    install("pi", "math:e", "second")
    registry: Registry[float] = Registry("thing", {})
    with pytest.raises(UsageError) as caught:
        registry.require("pi")
    for where in ("math:pi of the package first 1.0", "math:e of the package second 1.0"):
        assert where in caught.value.message


WHOLE = "class Thing:\n    run = 'math:pi'\n    def work(self): ...\n"
ABSTRACT = (
    "from abc import ABC, abstractmethod\nclass Thing(ABC):\n    run = ''\n    @abstractmethod\n    def work(self): ..."
)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "raise ValueError('no such device\\nand more')",
            "cannot be loaded from bad_thing:Thing: ValueError: no such device",
        ),
        ("import sys; sys.exit(3)", "cannot be loaded from bad_thing:Thing: SystemExit: 3"),
        ("import nothing_of_this_name", "cannot be loaded from bad_thing:Thing: ModuleNotFoundError: No module named"),
        ("def Thing(:", "cannot be loaded from bad_thing:Thing: SyntaxError: "),
        ("", "cannot be loaded from bad_thing:Thing: AttributeError: module 'bad_thing' has no attribute 'Thing'"),
        ("class Thing:\n    run = 'math:pi'\n", "has no work."),
        ("Thing = 3", "has no run, work."),
        (ABSTRACT, "has no work."),
        (WHOLE.replace("math:pi", "math:nothing"), "cannot be loaded from math:nothing: AttributeError: "),
    ],
)
def test_what_is_wrong_with_a_package_is_told_to_who_asks_for_it_and_the_rest_works(
    install, code: str, message: str
) -> None:
    install("bad", "bad_thing:Thing", code=code)
    registry: Registry[object] = Registry("thing", {"e": "math:e"}, parts=("run", "work"), locations=("run",))
    for ask in (registry.get, registry.require, registry.member):
        with pytest.raises(UsageError) as caught:
            ask("bad")
        assert caught.value.message.startswith(f"The thing 'bad' of the package extra 1.0 {message}")
        assert "works as before" in caught.value.remedy
        assert caught.value.exit_code == ExitCode.BAD_USAGE
    found = dict(registry.survey())
    assert list(found) == ["e", "bad"]
    assert isinstance(found["bad"], UsageError)
    assert list(registry.usable()) == ["e"]


def test_a_whole_extension_of_a_package(install) -> None:
    install("good", "good_thing:Thing", code=WHOLE)
    registry: Registry[type] = Registry("thing", {}, parts=("run", "work"), locations=("run",))
    assert registry.get("good").__name__ == "Thing"


def test_memory_that_runs_out_in_an_import_is_no_fault_of_the_package(install) -> None:
    install("bad", "bad_thing:Thing", code="raise MemoryError")
    with pytest.raises(MemoryError):
        Registry("thing", {}).get("bad")


SOURCES = Path(__file__).parents[2] / "pipeline"
REGISTRY = re.compile(r"^([A-Z]+): Registry\[.*?\] = Registry\(\s*\"(\w+)\"", re.MULTILINE)


def test_every_registry_has_a_group_of_its_own_that_the_docs_name() -> None:
    kinds = [kind for file in sorted(SOURCES.rglob("*.py")) for _, kind in REGISTRY.findall(file.read_text())]
    assert len(kinds) == len(set(kinds)) >= 11
    docs = (SOURCES.parent / "docs" / "extending.md").read_text()
    assert {kind for kind in kinds if f"`edge_pipeline.{kind}`" not in docs} == set()
