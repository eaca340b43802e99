"""An installed package adds one of each kind, and all of them work from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from fixtures import LENIENT_TARGET

from pipeline.compress import PASSES
from pipeline.config.job import Job
from pipeline.core.registry import load_attribute
from pipeline.plan.build import make_plan

PACKAGE = Path(__file__).parent / "package"
DOCS = Path(__file__).parents[2] / "docs" / "extending.md"

RECIPE = """
title = "One of everything that the package adds"

[scheme]
base = "w8a8-sigma"

[scheme.overrides]
"encoder.layer.0.intermediate.*" = "ternary"

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

BUDGET = """
[budgets.max_nodes]
limit = 1000
required = true
evidence = ["host"]
source = "assumption: a test"
"""


def test_a_model_is_exported_with_all_that_the_package_adds(edge, tiny, workspace: Path) -> None:
    (workspace / "recipes").mkdir()
    (workspace / "recipes" / "everything.toml").write_text(RECIPE)
    (workspace / "targets" / "board.toml").write_text('runner = "toy-board"\n' + LENIENT_TARGET + BUDGET)
    done = edge("export", *tiny, "--task", "mean-state", "--recipe", "everything", "--target", "board")
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
    assert accuracy["primary"] == "cosine"
    assert report["figures"]["latency_p95_ms"]["evidence"] == "device"
    nodes = next(budget for budget in report["budgets"] if budget["metric"] == "max_nodes")
    assert (nodes["verdict"], nodes["figure"]["unit"]) == ("PASS", "nodes")
    graph = onnx.load(workspace / "out/bundle/model.onnx", load_external_data=False).graph
    read = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.input}
    assert "encoder.layer.0.intermediate.dense.weight.smoothed.codes" in read


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package is on the path of this process too."""
    monkeypatch.syspath_prepend(str(site))
    PASSES.__dict__.pop("_places", None)
    yield
    PASSES.__dict__.pop("_places", None)


def test_a_stage_gets_what_its_pass_needs_and_its_package_is_in_the_keys(
    installed: None, tiny_encoder: Path, workspace: Path
) -> None:
    recipe = workspace / "clip.toml"
    recipe.write_text('title = "Clip"\nscheme = "fp32"\n[[passes]]\npass = "clip"\ndeviations = 2.0\n')
    data = (str(workspace / "evaluation.txt"),)
    plan = make_plan(Job(model=str(tiny_encoder), target="phone", recipe=str(recipe), eval_data=data))
    stages = {stage.name: stage for stage in plan.stages}
    assert "samples.calibration" not in stages
    clip = stages["compress.0.clip"]
    assert (clip.run, clip.version, clip.inputs) == ("toy_edge.clip:run", 1, {})
    assert (clip.config["pass"], clip.config["limits"]) == ({"deviations": 2.0}, {})
    made_with = {name for name, stage in stages.items() if "toy-edge" in stage.libraries}
    assert made_with == {"compress.0.clip", "trace"}


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
