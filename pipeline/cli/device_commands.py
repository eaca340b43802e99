"""The commands of `edge devices` and their flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options as flag
from pipeline.config.job import DEFAULT_TARGET

app = typer.Typer(help="Where bundles are measured: list, set up, probe and remove it.", no_args_is_help=True)
Runner = Annotated[str, typer.Argument(help="A runner (`edge devices list`).", metavar="RUNNER")]


@app.command("list")
def list_(debug: flag.Debug = False) -> None:  # noqa: ARG001
    """List the runners, what their figures count as, and what is missing for them."""
    from pipeline.cli.devices import show_runners  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    show_runners(output_console())


@app.command()
def probe(
    runner: Annotated[
        str, typer.Argument(help="A runner and, behind a colon, its place or tier.", metavar="RUNNER[:PLACE]")
    ],
    target: flag.Target = DEFAULT_TARGET,
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Start a runner and show the machine that it measures on: CPU, features, versions."""
    from pipeline.cli.devices import probe as probed  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    probed(runner, target, output_console())


@app.command()
def setup(
    runner: Runner,
    sources: Annotated[
        Path | None,
        typer.Option(
            help="apt sources in place of this machine's own: a .list or .sources file.",
            parser=flag.place,
            metavar="PATH",
        ),
    ] = None,
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Fetch what a runner needs into the cache folder (arm64: the emulated environment)."""
    from pipeline.cli.devices import set_up  # noqa: PLC0415

    set_up(runner, sources)


@app.command()
def remove(runner: Runner, debug: flag.Debug = False) -> None:  # noqa: ARG001
    """Remove what `edge devices setup` fetched."""
    from pipeline.cli.devices import remove as removed  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    removed(runner, output_console())
