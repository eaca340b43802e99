"""The flags that several commands share. Names follow what people know from optimum and Olive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.core.errors import UsageError

Target = Annotated[str, typer.Option("-t", "--target", help="Device profile: a name (`edge targets`) or a .toml file.")]
Model = Annotated[
    str,
    typer.Option(
        "-m",
        "--model",
        help="Hugging Face folder or hub id, packaged model, file.py:factory, module:factory, .onnx.",
    ),
]
Recipe = Annotated[str | None, typer.Option("-r", "--recipe", help="Recipe name (`edge recipes`) or a .toml file.")]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Folder for bundle and reports.", show_default="artifacts/..."),
]
Store = Annotated[
    Path | None,
    typer.Option("--store", envvar="EDGE_STORE", help="Where results of stages are kept.", show_default="user cache"),
]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON on standard output.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what the libraries log.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Baseline = Annotated[
    Path | None, typer.Option("--baseline", help="An earlier report.json that must not be regressed from.")
]
Metric = Annotated[
    str | None,
    typer.Option(help="Your own metric: file.py:name of a function (outputs, references) -> float, higher is better."),
]
References = Annotated[
    Path | None, typer.Option(help="A .csv with a row per evaluation sample, for --metric; else the set's labels.")
]
Budgets = Annotated[
    list[str] | None,
    typer.Option("--budget", help="Change a limit: METRIC=LIMIT. Repeatable.", metavar="METRIC=LIMIT"),
]


def parse_budgets(given: list[str] | None) -> dict[str, float]:
    """`["bundle_mb=20"]` -> `{"bundle_mb": 20.0}`; UsageError if one is not of that form."""
    limits = {}
    for item in given or []:
        name, equals, limit = item.partition("=")
        try:
            limits[name] = float(limit)
        except ValueError:
            equals = ""
        if not equals:
            raise UsageError(f"--budget {item!r} is not METRIC=LIMIT.", "For example: --budget bundle_mb=20.")
    return limits
