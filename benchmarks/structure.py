"""Figures of the code itself: how far a concept is spread over files.

A file branches on a concept if it compares one of its fields, or asks one for its truth: a scheme's bits outside the
number formats, a kind of output outside the tasks.
"""

from __future__ import annotations

import ast
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.row import Measured, Row
from pipeline.core.types import Scheme

PACKAGE = Path(__file__).parents[1] / "pipeline"
_MODELS = {"source", "teacher", "spec", "model"}
_SCHEME_HOMES = ("formats", "core/types.py", "quantize/schemes.py")
_NAMES = {"name", "nodes_to_exclude"}
_TEST_SECONDS = 480.0


@cache
def trees() -> dict[str, ast.Module]:
    """Every file of the package, parsed, by its path in it."""
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports_p90() -> Measured:
    """The 90th percentile of own modules that a file imports, beside the largest number."""
    counts = [len(set(_own_imports(tree))) for tree in trees().values()]
    return Measured(float(np.percentile(counts, 90)), float(max(counts)))


def test_seconds() -> Measured:
    """What `make test` takes, beside what it may; CalledProcessError if a test fails."""
    begin = time.perf_counter()
    subprocess.run(["make", "test"], cwd=PACKAGE.parent, check=True)  # noqa: S607  # the command that people give
    return Measured(time.perf_counter() - begin, _TEST_SECONDS)


def _own_imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline"):
            yield str(node.module)


def source_reads() -> Measured:
    """String reads of dicts that describe a model, beside the files with any."""
    found = {path: sum(map(_reads_model, ast.walk(tree))) for path, tree in trees().items()}
    return Measured(float(sum(found.values())), float(sum(count > 0 for count in found.values())))


def _reads_model(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        named = _last(node.value)
        return named in _MODELS or (named == "config" and node.slice.value in _MODELS - {"spec"})
    return False


def scheme_branches() -> Measured:
    """Files outside the number formats that branch on a scheme's fields, beside their branches."""
    fields = set(Scheme.model_fields) - _NAMES
    found = {
        path: sum(_last(node.value) in ("scheme", "schemes") and node.attr in fields for node in _asked(tree))
        for path, tree in trees().items()
        if not any(home in path for home in _SCHEME_HOMES)
    }
    return Measured(float(sum(count > 0 for count in found.values())), float(sum(found.values())))


def family_branches() -> Measured:
    """Files outside the tasks that branch on a kind of output, beside their branches."""
    found = {path: sum(map(_asks_family, ast.walk(tree))) for path, tree in trees().items() if "tasks/" not in path}
    return Measured(float(sum(count > 0 for count in found.values())), float(sum(found.values())))


def _asks_family(node: ast.AST) -> bool:
    """Is it compared with names that stand in the code?"""
    if not isinstance(node, ast.Compare):
        return False
    sides = [node.left, *node.comparators]
    named = any(isinstance(side, (ast.Constant, ast.Tuple, ast.List, ast.Set)) for side in sides)
    return named and any(_last(side) == "family" for side in sides)


def _asked(tree: ast.Module) -> Iterator[ast.Attribute]:
    """Attributes inside comparisons and in the tests of branches; each once."""
    asked = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    asked += [node.test for node in ast.walk(tree) if isinstance(node, (ast.If, ast.IfExp))]  # type: ignore[misc]
    found = {id(part): part for node in asked for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    yield from found.values()


def _last(node: ast.AST) -> str:
    """The last name of `a.b.c`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


ROWS = [
    Row("structure.imports_p90", "modules", "most of a file", imports_p90),
    Row("structure.source_reads", "reads", "files with any", source_reads),
    Row("structure.scheme_branches", "files", "branches in them", scheme_branches),
    Row("structure.family_branches", "files", "branches in them", family_branches),
    Row("structure.test_s", "s", "limit", test_seconds),
]


def main() -> None:
    for row in ROWS[:-1]:  # tests take minutes
        measured = row.measure()
        print(f"{row.id:<30}{measured.value:8.4g} {row.unit}   ({row.reference}: {measured.reference:.4g})")


if __name__ == "__main__":
    main()
