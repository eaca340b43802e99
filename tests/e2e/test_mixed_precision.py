"""Number formats by name patterns: from a recipe to a bundle that runs, and a report that tells them apart."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import onnx
import pytest

RECIPE = """
title = "Mixed by hand"

[scheme]
base = "w4"

[scheme.overrides]
"*.layer.0.*" = "int8-channel"
"*.layer.0.output.*" = "{last}"
"*word_embeddings*" = "fp16"
"""
FIRST, SECOND = "encoder.layer.0.intermediate.dense", "encoder.layer.1.intermediate.dense"


@pytest.fixture
def recipe(workspace: Path):
    """Writes the recipe `mixed`, with a format for layer 0's second FFN product."""
    (workspace / "recipes").mkdir()

    def write(last: str) -> None:
        (workspace / "recipes/mixed.toml").write_text(RECIPE.format(last=last))

    return write


def test_every_layer_gets_its_own_format(edge, tiny, workspace: Path, recipe) -> None:
    recipe("fp32")
    done = edge("export", *tiny, "--recipe", "mixed")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    found = {entry["node"].split("/")[0]: (entry["format"], entry["override"]) for entry in report["formats"]}
    assert found == {
        FIRST: ("int8-channel", "*.layer.0.*"),
        SECOND: ("int4-block", ""),
        "encoder.layer.1.output.dense": ("int4-block", ""),
        "embeddings.word_embeddings": ("fp16", "*word_embeddings*"),
    }
    model = onnx.load(workspace / "out/bundle/model.onnx")
    operators = Counter(node.op_type for node in model.graph.node)
    assert (operators["MatMulNBits"], operators["MatMulInteger"]) == (2, 1)
    left = {entry["name"]: entry["reason"] for entry in report["coverage"]["left_in_float"]}
    assert left["encoder.layer.0.output.dense.weight"] == (
        "the scheme w4 keeps weights in float (override '*.layer.0.output.*')"
    )
    assert 0 < report["coverage"]["weights"]["value"] < 1
    # int8 codes and a float32 scale per output; 4-bit codes and a float16 scale per block of 32
    sizes = {entry["node"].split("/")[0]: round(entry["megabytes"] * 1e6) for entry in report["formats"]}
    assert (sizes[FIRST], sizes[SECOND]) == (32 * 128 + 4 * 128, 32 * 128 // 2 + 2 * 128)
    stored = sum(constant.ByteSize() for constant in model.graph.initializer)
    assert sum(sizes.values()) < stored
    assert any(
        note.startswith("Number formats by the scheme and its overrides: int8-channel 1 weight")
        for note in report["notes"]
    )
    assert any("found at run time" in note for note in report["notes"])
    assert not any("No weight is stored" in note for note in report["notes"])
    page = (workspace / "out/report.html").read_text()
    assert "Number formats of weights" in page
    assert "*.layer.0.*: int8-channel; *.layer.0.output.*: fp32; *word_embeddings*: fp16" in page
    assert "MatMulNBits" in edge("inspect", "out/bundle").stdout
    assert edge("check", "out/bundle", "--target", "lenient").returncode == 0


def test_a_pattern_that_takes_no_weight_is_noted(edge, tiny, workspace: Path, recipe) -> None:
    recipe("int4-block")
    path = workspace / "recipes/mixed.toml"
    path.write_text(path.read_text() + '"*.layer.0.output.dense*" = "int4-block"\n')
    assert edge("export", *tiny, "--recipe", "mixed").returncode == 0
    report = json.loads((workspace / "out/report.json").read_text())
    assert any(
        note.startswith("No weight is stored as these overrides say: *.layer.0.output.*. ") for note in report["notes"]
    )


def test_a_pattern_that_matches_nothing_is_named(edge, tiny, workspace: Path, recipe) -> None:
    recipe("int4-block")
    path = workspace / "recipes/mixed.toml"
    path.write_text(path.read_text() + '"*.layer.7.intermediate.*" = "int8-channel"\n')
    done = edge("export", *tiny, "--recipe", "mixed")
    assert done.returncode == 2
    assert (
        "error: The scheme's override '*.layer.7.intermediate.*' matches no node that reads a weight.\n"
        "  Names look like: encoder.layer."
    ) in done.stderr


def test_a_format_that_does_not_exist_is_named_before_anything_runs(edge, tiny, recipe) -> None:
    recipe("int5")
    done = edge("export", *tiny, "--recipe", "mixed", "--dry-run")
    assert done.returncode == 2
    assert "'int5'" in done.stderr


def test_lists_say_what_schemes_and_formats_do(edge) -> None:
    formats, schemes = (
        " ".join(edge(name).stdout.split()) for name in ("formats", "schemes")
    )  # however wide columns are
    assert "int4-block products, tables" in formats
    assert "int8-channel products, tables, convolutions" in formats
    assert "fp32 products, tables, convolutions" in formats
    assert "widened to 8 bits" in schemes
    assert "w4a8-static 4-bit integers" in schemes
    assert "(accuracy_level" in schemes
