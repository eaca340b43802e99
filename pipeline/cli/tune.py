"""`edge tune`: which session settings make a bundle faster here, shown and, if asked, written into the target."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnxruntime
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.bundle.example_feed import example_feed
from pipeline.bundle.graph import read_graphs
from pipeline.bundle.manifest import read_manifest
from pipeline.bundle.records import bundle_graphs
from pipeline.checks.tune import SECONDS, Tried, Tuning, tune
from pipeline.cli.terminal import Terminal, output_console
from pipeline.config.edit_target import local_target_file, write_disabled_optimizers
from pipeline.config.loading import load_target
from pipeline.core.errors import UsageError
from pipeline.core.types import Figure
from pipeline.devices import runner_of
from pipeline.devices.host_info import host_info
from pipeline.devices.runner import lacking
from pipeline.graph.files import only
from pipeline.runtime.feeds import write_feed


def run(bundle: Path, target: str, write: bool) -> None:
    """Measure, print a table, and with `write` change the target's file in the working folder."""
    profile = load_target(target)
    runner = runner_of(profile)
    if reason := lacking(runner, "times"):
        raise UsageError(
            f"Settings are tuned by latency, and the runner {profile.runner!r} has none: {reason}.",
            'Name another runner in the target, like "host" or "ssh:USER@BOARD".',
        )
    file = local_target_file(target) if write else None
    read_manifest(bundle)
    read_graphs(bundle)
    terminal = Terminal(verbose=False)
    with terminal.running(), tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_feed(inputs, example_feed(bundle, profile.shape))
        tuning = tune(
            runner,
            only(bundle_graphs(bundle), "`edge tune`"),
            inputs,
            profile.runtime,
            profile.measure_seconds or SECONDS,
            terminal.begin("switch off optimizations"),
        )
    console = output_console()
    _show(tuning, console)
    source = source_of(tuning)
    console.print(f"disabled_optimizers = {list(tuning.runtime.disabled_optimizers)}", soft_wrap=True)
    console.print(f'sources: "{source}"', soft_wrap=True)
    if file is not None:
        write_disabled_optimizers(file, tuning.runtime.disabled_optimizers, source)
        console.print(f"Written to {file}. The next export carries it in its bundle.", soft_wrap=True)


def _show(tuning: Tuning, console: Console) -> None:
    table = Table("switched off", "operators then", "speed", "95 % CI", "", box=None, pad_edge=False, padding=(0, 2))
    for entry in tuning.tried:
        table.add_row(entry.optimizer, entry.change, *_speed(entry.speedup), _verdict(entry))
    if tuning.speedup is not None:
        table.add_row("all that help", "", *_speed(tuning.speedup), "")
    console.print(table)
    for entry in filter(lambda entry: entry.undecided and entry.speedup.doubt, tuning.tried):
        console.print(f"{entry.optimizer}: {undecided_words(entry.speedup)}", markup=False, soft_wrap=True)


def _verdict(entry: Tried) -> Text:
    if entry.undecided:
        return Text("not decided", "yellow")
    return Text("helps", "green") if entry.helps else Text("leave it on", "dim")


def undecided_words(speedup: Figure) -> str:
    """Why a measured speed-up says neither that a setting helps nor that it does not."""
    assert speedup.doubt is not None  # noqa: S101  # it is undecided
    return f"not decided, and left on ({speedup.doubt.why})."


def _speed(figure: Figure) -> tuple[str, str]:
    interval = "" if figure.low is None or figure.high is None else f"[{figure.low:.3f}, {figure.high:.3f}]"
    return f"{figure.value:.3f}x", interval


def source_of(tuning: Tuning) -> str:
    """Where the setting comes from, for the target's file: a measurement on this machine, said so."""
    host = host_info()
    where = f"edge tune on {host.cpu} ({host.system.split()[-1]}), ONNX Runtime {onnxruntime.__version__}"
    if tuning.speedup is None:
        return f"{where}: switching none of the {len(tuning.tried)} optimizations off helps"
    return f"{where}: {tuning.speedup.value:.2f}x the speed of all optimizations on"
