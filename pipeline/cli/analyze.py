"""`edge analyze`: a model's latency and power on a target, estimated, and which providers would run it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.checks.analyze import Analysis, analyze
from pipeline.cli.terminal import output_console
from pipeline.config.loading import load_target
from pipeline.core.digest import pretty_json
from pipeline.report.wrapping import print_wrapped

_SHOWN = 4
_NAMES = {"latency_p50_ms": "latency, median", "latency_p95_ms": "latency, 95th percentile", "max_power_w": "power"}


def run(model: Path, target: str, json: bool, *, threads: int | None, **shape: int | None) -> None:
    """Print the analysis; as JSON, all of it. `shape`: what goes before the target's."""
    profile = load_target(target).changed(runtime={"threads": threads}, shape=dict(shape))
    found, console = analyze(model, profile), output_console()
    if json:
        console.out(pretty_json(found.model_dump(mode="json")), end="", highlight=False)
    else:
        _show(found, console)


def _show(found: Analysis, console: Console) -> None:
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in found.shapes.items())
    print_wrapped(f"{found.model} on {found.target}, with {shapes}", console)
    for name, figure in found.figures.items():
        ends = f"{figure.low:.3g} to {figure.high:.3g}" if figure.low is not None and figure.high is not None else ""
        print_wrapped(f"{_NAMES[name]}: {figure.value:.3g} {figure.unit} ({ends})", console)
    for note in dict.fromkeys(figure.note for figure in found.figures.values()):
        print_wrapped(note, console, indent=2)
    if found.out_of_range:
        print_wrapped(f"latency and power: out of range, {found.out_of_range}", console)
    table = Table("provider", "operators", "products", "parts", "copied", "left on the CPU", box=None, pad_edge=False)
    for each in found.providers:
        left = [f"{name} x{count}" for name, count in each.left.items()]
        more = [f"{len(left) - _SHOWN} more"] if len(left) > _SHOWN else []
        table.add_row(
            each.title,
            f"{each.taken} of {each.nodes}",
            "-" if each.products is None else f"{each.products:.0%}",
            str(each.parts),
            f"{each.crossing_mb:.3g} MB",
            ", ".join([*left[:_SHOWN], *more]) or "-",
        )
    console.print(table)
    for each in found.providers:
        if each.needs:
            print_wrapped(f"{each.title} needs {each.needs}", console, indent=2)
        said = f"as {each.compiled} compiled it" if each.compiled else f"as listed by {each.source}"
        print_wrapped(f"{each.title}: {said}", console, indent=2)
    for line in found.advice:
        print_wrapped(line, console, indent=2)
