"""A package with a mistake is named, and hurts nobody who does not ask for what it adds."""

from __future__ import annotations

from pathlib import Path

import pytest

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
