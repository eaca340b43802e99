"""`edge compare`: a recipe beside plain quantization, shown, and written as JSON and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.cli.export import headline
from pipeline.cli.terminal import Terminal, output_console
from pipeline.comparison.compare import run_comparison
from pipeline.config.job import Job
from pipeline.core.digest import pretty_json
from pipeline.core.errors import ExitCode
from pipeline.core.report_types import Comparison
from pipeline.core.store import Store, default_store
from pipeline.plan.build import make_plan
from pipeline.report.comparison.files import comparison_folder, write_comparison
from pipeline.report.comparison.terminal import render_comparison
from pipeline.report.comparison.text import incomparable


def run(
    fields: dict[str, Any],
    against: Sequence[str],
    fail_if_dominated: bool,
    store: Path | None,
    json: bool,
    verbose: bool,
) -> int:
    """Compare; the exit code says that it ran, or with `fail_if_dominated` what it found."""
    plan = make_plan(Job.from_data(fields, "the command line"))
    folder = comparison_folder(plan.job.output, plan.target.name, plan.source.name, plan.recipe.name)
    terminal = Terminal(verbose)
    with terminal.running():
        terminal.console.print(headline(plan).append(", beside plain quantization"))
        comparison = run_comparison(plan, against, Store(store or default_store()), terminal)
    write_comparison(comparison, folder)
    console = output_console()
    if json:
        console.out(pretty_json(comparison.model_dump(mode="json")), end="", highlight=False)
    else:
        render_comparison(comparison, console)
        console.print(f"Written to {folder}.", soft_wrap=True)
    return _exit_code(comparison) if fail_if_dominated else ExitCode.PASS


def _exit_code(comparison: Comparison) -> ExitCode:
    """Dominated is a failure; a plain scheme that may dominate or not leaves it open."""
    if comparison.dominated_by:
        return ExitCode.BUDGET_FAILED
    return ExitCode.NOT_MEASURED if incomparable(comparison) else ExitCode.PASS
