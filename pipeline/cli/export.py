"""Running exports and checks for the command line, and printing their results."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from pipeline.api import check, run_export
from pipeline.checks.user_metric import load_user_metric
from pipeline.cli.terminal import Terminal, output_console
from pipeline.config.job import Job
from pipeline.core.digest import pretty_json
from pipeline.core.report_types import Report
from pipeline.core.run_stages import preview
from pipeline.core.store import Store, default_store
from pipeline.plan.build import Plan, make_plan
from pipeline.plan.stage_titles import title_of
from pipeline.report.output_folder import output_folder
from pipeline.report.terminal import render


def run(fields: dict[str, Any], store: Path | None, json: bool, verbose: bool) -> int:
    """Export; the exit code is the verdict's."""
    plan = _plan(fields)
    terminal = Terminal(verbose)
    with terminal.running():
        terminal.console.print(headline(plan))
        result = run_export(plan, Store(store or default_store()), terminal)
    _show(result.report, json)
    if not json:
        runner = [] if plan.job.runner is None else ["--runner", plan.job.runner]
        again = shlex.join(["edge", "check", str(result.folder / "bundle"), "--target", plan.job.target, *runner])
        output_console().print(f"Bundle and reports: {result.folder}\nTo measure it again: {again}", soft_wrap=True)
    return result.report.exit_code


def recheck(bundle: Path, target: str, fields: dict[str, Any], json: bool) -> int:
    """Check an existing bundle; `fields`: of `api.check` by name, `metric` as (--metric, --references); the exit code
    is the verdict's."""
    options = {**fields, "metric": load_user_metric(*fields["metric"])}
    terminal = Terminal(verbose=False)
    with terminal.running():
        report = check(bundle, target, console=terminal, **options)
    _show(report, json)
    return report.exit_code


def dry(fields: dict[str, Any], store: Path | None, json: bool) -> None:
    """Print the plan: every stage, and whether its result is in the store."""
    plan = _plan(fields)
    output_folder(plan.job.output, plan.target.name, plan.source.name, plan.recipe.name)
    place = Store(store or default_store())
    place.prepare()
    rows = preview(plan.stages, place)
    console = output_console()
    if json:
        console.out(pretty_json([{"stage": name, "state": state} for name, state in rows]), end="")
        return
    table = Table("stage", "what it does", "state", box=None, pad_edge=False)
    for name, state in rows:
        table.add_row(name, title_of(name), state)
    console.print(headline(plan))
    console.print(table)
    console.print("Latency, memory and the profile are measured every time.")
    for note in plan.notes:
        console.print(f"Note: {note}", markup=False)


def _plan(fields: dict[str, Any]) -> Plan:
    return make_plan(Job.from_data(fields, "the command line"))


def headline(plan: Plan) -> Text:
    """Model, target and recipe, for the line that a command begins with."""
    return Text.assemble(
        (plan.source.name, "bold"),
        f" ({plan.source.task.name}) -> ",
        (plan.target.name, "bold"),
        f" ({plan.target.title}), recipe {plan.recipe.name}",
    )


def _show(report: Report, json: bool) -> None:
    console = output_console()
    if json:
        console.out(pretty_json(report.model_dump(mode="json")), end="", highlight=False)
    else:
        render(report, console)
