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
def calibrate(
    runner: Annotated[str, typer.Argument(help="A runner and, behind a colon, its place.", metavar="RUNNER[:PLACE]")],
    target: flag.Target = DEFAULT_TARGET,
    threads: flag.Threads = None,
    write: Annotated[bool, typer.Option("--write", help="Put the costs into the target's file here.")] = False,
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Measure in two minutes what operators cost on a device, so that latency can be estimated for it."""
    from pipeline.cli.devices import calibrate as calibrated  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    calibrated(runner, target, threads, write, output_console())


@app.command()
def kit(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.", parser=flag.place, metavar="BUNDLE")],
    target: flag.Target = DEFAULT_TARGET,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The new folder.", parser=flag.place, metavar="PATH")
    ] = Path("kit"),
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Write a folder with which a bundle is measured by hand on a device that nothing here reaches."""
    from pipeline.checks.device_kit import write_kit  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415
    from pipeline.config.loading import load_target  # noqa: PLC0415

    write_kit(bundle, load_target(target), output)
    output_console().print(
        f"{output} is ready. On the device, in that folder: python worker.py request.json report.json\n"
        f"Then here: edge check {bundle} --target {target} --device-report report.json",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


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
