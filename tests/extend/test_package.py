"""An installed package adds one of each kind, and all of them work from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.core.registry import load_attribute

PACKAGE = Path(__file__).parent / "package"
DOCS = Path(__file__).parents[2] / "docs" / "extending.md"

RECIPE = """
title = "One of everything that the package adds"
scheme = "w8a8-sigma"

[[passes]]
pass = "clip"
deviations = 2.0

[[passes]]
pass = "prune"
unit = "last_ffn"
importance = "mean_weight"
ratio = 0.25
samples = 16

[[passes]]
pass = "distill"
losses = { huber = 1.0 }
steps = 2
batch_size = 8
held_out = 0.2
judge_samples = 16
"""


@pytest.fixture
def recipe(workspace: Path) -> str:
    (workspace / "recipes").mkdir()
    (workspace / "recipes" / "everything.toml").write_text(RECIPE)
    return "everything"


def test_a_model_is_exported_with_all_that_the_package_adds(edge, tiny, workspace: Path, recipe: str) -> None:
    done = edge("export", *tiny, "--task", "mean-state", "--recipe", recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    clip, prune, distill = report["passes"]
    assert report["task"] == "mean-state"
    assert (clip["pass"], "metric_before" in clip) == ("clip", False)
    assert clip["clipped"] > 0
    assert (prune["unit"], prune["importance"]) == ("last_ffn", "mean_weight")
    assert (prune["neurons_before"], prune["neurons_after"]) == (128, 96)
    assert distill["losses"] == {"huber": 1.0}
    assert (report["scheme"]["name"], report["scheme"]["observer"]) == ("w8a8-sigma", "three_sigma")
    (accuracy,) = report["accuracy"]
    assert list(accuracy["scores"]) == ["cosine"]


def test_they_are_listed_with_their_meaning_and_package(edge) -> None:
    found = edge("passes").stdout
    for name, said in {
        "clip": "Cuts off the weights of Linear layers",
        "last_ffn": "neurons of every last feed-forward block",
        "mean_weight": "Mean magnitude of the weights coupled to each unit",
        "huber": "Huber loss of the outputs",
    }.items():
        assert re.search(rf"^{name} +{re.escape(said)} +toy-edge", found, re.MULTILINE), found
    assert re.search(r"^deviations +3\.?0* *$", edge("passes", "clip").stdout, re.MULTILINE)
    assert re.search(r"^mean-state .* toy-edge", edge("tasks").stdout, re.MULTILINE)


def test_the_documentation_shows_the_package_as_it_is_tested() -> None:
    docs = DOCS.read_text()
    for file in sorted((PACKAGE / "toy_edge").glob("[a-z]*.py")):
        assert f"```python\n# toy_edge/{file.name}\n{file.read_text()}```" in docs, file.name


def test_every_extension_of_our_own_has_the_parts_that_packages_are_asked_for() -> None:
    places = re.compile(r"^([A-Z]+): Registry\[", re.MULTILINE)
    root = DOCS.parents[1]
    for file in sorted((root / "pipeline").rglob("*.py")):
        for name in places.findall(file.read_text()):
            module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            registry = load_attribute(f"{module}:{name}")
            for found in registry.usable().values():
                assert [part for part in registry.parts if not hasattr(found, part)] == []
