"""A package with a mistake is named, and hurts nobody who does not ask for what it adds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures import LENIENT_TARGET

MOODS = """
[budgets.moods]
limit = 1
required = true
evidence = ["host"]
source = "assumption: a test"
"""
DROPPED = 'title = "Falls"\nscheme = "fp32"\n[[passes]]\npass = "{}"\n{}\n'


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            DROPPED.format("falls", ""),
            "error: The pass 'falls' of the package bad-import 0.1 cannot be loaded from bad_import:Falls: "
            "RuntimeError: needs a GPU\n  Repair the package or uninstall it. All that does not ask for this name "
            "works as before.\n",
        ),
        (
            DROPPED.format("half", ""),
            "error: The pass 'half' of the package bad-parts 0.1 has no run.\n  docs/extending.md says what it needs. "
            "Repair bad-parts or uninstall it; all else works as before.\n",
        ),
        (
            'title = "Taken"\nscheme = "w4"\n',
            "error: scheme 'w4' is registered twice: pipeline.quantize.schemes:W4 and toy_edge.scheme:W8A8_SIGMA of "
            "the package bad-name 0.1.\n  Uninstall one of the packages, or rename its entry point. All else works as "
            "before.\n",
        ),
        (
            DROPPED.format("prune", 'unit = "layers"\nratio = 0.5'),
            "error: unit 'layers' is registered twice: pipeline.compress.prune.layers.config:PruneLayers and "
            "toy_edge.last_ffn:LAST_FFN of the package bad-unit 0.1.\n  Uninstall one of the packages, or rename its "
            "entry point. All else works as before.\n",
        ),
    ],
)
def test_who_asks_for_it_is_told_the_package(
    edge_with_broken, tiny, workspace: Path, recipe: str, message: str
) -> None:
    (workspace / "recipes").mkdir()
    (workspace / "recipes" / "mine.toml").write_text(recipe)
    done = edge_with_broken("export", *tiny, "--recipe", "mine", "--dry-run")
    assert (done.returncode, done.stderr) == (2, message)


def test_the_rest_works_and_lists_say_what_does_not(edge_with_broken, tiny) -> None:
    done = edge_with_broken("export", *tiny, "--recipe", "w8a8-dynamic", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    listed = edge_with_broken("passes")
    assert listed.returncode == 0
    assert "\nprune " in listed.stdout
    assert "\nclip " in listed.stdout
    said = " ".join(listed.stdout.split())
    assert "Cannot be used: The pass 'falls' of the package bad-import 0.1 cannot be loaded" in said
    assert "Cannot be used: The pass 'half' of the package bad-parts 0.1 has no run." in said
    schemes = edge_with_broken("schemes")
    assert schemes.returncode == 0
    assert "\nw8a8-sigma " in schemes.stdout
    assert "scheme 'w4' is registered twice" in " ".join(schemes.stdout.split())
    tasks = " ".join(edge_with_broken("tasks").stdout.split())
    assert "Cannot be used: The task 'empty' of the package bad-parts 0.1 has no name, data, family, output." in tasks


def test_code_that_fails_when_it_runs_is_told_with_its_package(edge_with_broken, tiny, workspace: Path) -> None:
    (workspace / "recipes").mkdir()
    (workspace / "recipes" / "mine.toml").write_text(DROPPED.format("breaks", ""))
    done = edge_with_broken("export", *tiny, "--recipe", "mine")
    assert done.returncode == 3
    assert (
        "error: The package bad-run 0.1 failed: AttributeError: 'StageContext' object has no attribute 'nothing' "
        "(in run, bad_run.py:12).\n  --debug shows where. Repair or uninstall it.\n"
    ) in done.stderr


def test_a_metric_that_fails_ends_only_exports_that_ask_for_it(edge_with_broken, tiny, workspace: Path) -> None:
    done = edge_with_broken("export", *tiny, "--recipe", "fp32", "-o", "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    failed = "There is no figure of moods: the package bad-run 0.1 failed: ZeroDivisionError: division by zero."
    assert failed in report["warnings"]
    target = workspace / "targets" / "moody.toml"
    target.write_text(LENIENT_TARGET + MOODS)
    done = edge_with_broken("check", "out/bundle", "--target", "moody")
    assert done.returncode == 3
    assert (
        "error: The package bad-run 0.1 failed: ZeroDivisionError: division by zero (in count, bad_run.py:15).\n"
        in (done.stderr)
    )
