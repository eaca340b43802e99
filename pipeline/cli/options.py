"""The flags that several commands share. Names follow what people know from optimum and Olive."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import __version__
from pipeline.config.job import DEFAULT_MODEL, Job
from pipeline.core.errors import UsageError, suggest

PRECISIONS = {"int8": "w8a8", "int4": "w4", "fp16": "fp16"}
"""What people call it -> recipe."""


_model = partial(typer.Option, rich_help_panel="Model")
_numbers = partial(typer.Option, rich_help_panel="Number formats")
_measuring = partial(typer.Option, rich_help_panel="Measuring and budgets")
_data = partial(typer.Option, rich_help_panel="Data")
_running = partial(typer.Option, rich_help_panel="Running")


def place(text: str) -> Path:
    """A path; typer's own would take an empty text for the working folder."""
    if not text:
        raise typer.BadParameter("it is empty.")
    return Path(text)


Target = Annotated[str, typer.Option("-t", "--target", help="Device profile: a name (`edge targets`) or a .toml file.")]
_MODEL = "Hugging Face folder or hub id, packaged model, file.py:factory, module:factory, .onnx, .gguf."
Given = Annotated[str | None, typer.Argument(help=_MODEL, metavar="MODEL", show_default=DEFAULT_MODEL)]
Model = Annotated[str | None, typer.Option("-m", "--model", help="The same as a flag.", show_default=DEFAULT_MODEL)]
Precision = Annotated[
    str | None,
    typer.Option(help="Short for a recipe: int8 is w8a8, int4 is w4, fp16 is fp16.", metavar="int8|int4|fp16"),
]
Recipe = Annotated[str | None, typer.Option("-r", "--recipe", help="Recipe name (`edge recipes`) or a .toml file.")]
Output = Annotated[
    Path | None,
    typer.Option(
        *("-o", "--output"),
        help="Folder for bundle and reports.",
        show_default="artifacts/...",
        parser=place,
        metavar="PATH",
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar="EDGE_STORE",
        help="Where results of stages are kept.",
        show_default="user cache",
        parser=place,
        metavar="PATH",
        rich_help_panel="Running",
    ),
]
Task = Annotated[str | None, _model(help="What the model does; told from its config if absent.")]
Opset = Annotated[
    int | None,
    typer.Option(
        help="ONNX opset, 21 to 23.",
        show_default="23; an ONNX file's own, from 21 on",
        rich_help_panel="Number formats",
    ),
]
MinOnnxruntime = Annotated[
    str | None,
    typer.Option(
        "--min-onnxruntime",
        help="Oldest ONNX Runtime that must load the bundle, like 1.20: lowers the opset.",
        show_default="any that the newest opset needs",
        metavar="RELEASE",
        rich_help_panel="Number formats",
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        help="How the bundle's files lie: single, mapped or both, or with the names that a client looks for.",
        show_default="target's",
        metavar="single|mapped|both|transformers.js|optimum|sentence-transformers",
    ),
]
Format = Annotated[
    str,
    typer.Option("--format", help="ort: the graphs in ONNX Runtime's own format too.", metavar="onnx|ort"),
]
BatchSize = Annotated[
    int | None,
    _measuring(help="Batch to measure at.", show_default="target's"),
]
SequenceLength = Annotated[
    int | None,
    typer.Option(
        help="Longest input, and the length to measure at.",
        show_default="target's",
        rich_help_panel="Measuring and budgets",
    ),
]
Threads = Annotated[
    int | None,
    _measuring(help="Threads to measure with.", show_default="target's"),
]
Runner = Annotated[
    str | None,
    typer.Option(
        help="Where the bundle is measured: host, arm64 (emulated), or a runner and its place (ssh:user@board).",
        show_default="target's",
        metavar="NAME[:PLACE]",
        rich_help_panel="Measuring and budgets",
    ),
]
DeviceReport = Annotated[
    Path | None,
    typer.Option(
        "--device-report",
        help="Figures that were measured elsewhere: the report of `edge devices kit`, the JSON of an AI Hub profile "
        "job, or what onnxruntime_perf_test printed.",
        parser=place,
        metavar="PATH",
        rich_help_panel="Measuring and budgets",
    ),
]
Previous = Annotated[
    Path | None,
    typer.Option(
        "--previous",
        help="An earlier bundle of the model: both take turns in one run, and more than 5 % slower fails "
        "(--budget min_previous_speedup=0.97 for 3 %).",
        parser=place,
        metavar="BUNDLE",
        rich_help_panel="Measuring and budgets",
    ),
]
TrustRemoteCode = Annotated[bool, _model("--trust-remote-code", help="Run code from the model.")]
AllowPickle = Annotated[
    bool,
    _model("--allow-pickle", help="Read tensors from a pickle if there is no safetensors."),
]
CalibrationData = Annotated[
    str | None,
    typer.Option(
        help="A set in calibration/, or .txt .jsonl .csv .tsv .npz .json (COCO), or a folder of images or .wav.",
        rich_help_panel="Data",
    ),
]
CalibrationSamples = Annotated[int | None, _data(help="How many of them.", show_default="recipe's")]
RandomCalibration = Annotated[
    bool,
    _data("--random-calibration", help="Calibrate on random tensors. The report says so."),
]
TrainingData = Annotated[
    list[str] | None,
    _data(help="What distill trains on, as above. Repeatable.", show_default="recipe's"),
]
SaveModel = Annotated[
    bool, typer.Option("--save-model", help="Publish the compressed PyTorch model too, for transformers to load.")
]
GoldenFrom = Annotated[
    str,
    _data(
        help="What the bundle's golden samples are made of: the evaluation data, shipped data, or invented inputs.",
        metavar="data|shipped|random",
    ),
]
EvalData = Annotated[list[str] | None, _data(help="Held-out data, as above. Repeatable.")]
TextColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the texts in .csv, .tsv and .jsonl files.",
        show_default="text, sentence, review, ...",
        rich_help_panel="Data",
    ),
]
LabelColumn = Annotated[
    str | None,
    _data(help="Column of their labels: class names or indices.", show_default="label"),
]
BlockSize = Annotated[int | None, _numbers(help="Block of 4-bit weights.", show_default="scheme's")]
Cache = Annotated[
    int | None,
    _numbers(help="Bits of a language model's keys and values: 32, 16 or 8.", show_default="scheme's"),
]
PerChannel = Annotated[
    bool | None,
    typer.Option(
        "--per-channel/--per-tensor",
        help="Scales of INT8 weights.",
        show_default="scheme's",
        rich_help_panel="Number formats",
    ),
]
NodesToExclude = Annotated[
    list[str] | None,
    _numbers(help="Name pattern of nodes to leave in float. Repeatable."),
]
Json = Annotated[bool, _running("--json", help="Print the report as JSON on standard output.")]
Verbose = Annotated[bool, _running("--verbose", help="Show what the libraries log.")]
Debug = Annotated[bool, _running("--debug", help="Show tracebacks.")]
Baseline = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        help="An earlier report.json that must not be regressed from.",
        parser=place,
        metavar="PATH",
        rich_help_panel="Measuring and budgets",
    ),
]
Tolerances = Annotated[
    list[str] | None,
    typer.Option(
        "--tolerance",
        help="By how much a figure may be worse than the baseline's: METRIC=AMOUNT in its unit. Repeatable.",
        metavar="METRIC=AMOUNT",
        rich_help_panel="Measuring and budgets",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="Your own metric: file.py:name of a function (outputs, references) -> float, in points, higher is better. "
        "outputs: a dict per sample, output name -> array with a batch axis of 1; references: the sample's label, or "
        "its row of --references.",
        rich_help_panel="Data",
    ),
]
References = Annotated[
    Path | None,
    typer.Option(
        help="A .csv with a row per evaluation sample, for --metric; else the set's labels.",
        parser=place,
        metavar="PATH",
        rich_help_panel="Data",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        help="The reference/ that an export left, to compare accuracy with where its store is not.",
        show_default="beside the bundle",
        parser=place,
        metavar="PATH",
        rich_help_panel="Data",
    ),
]
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        help="Change a limit, or add a budget: METRIC=LIMIT (`edge budgets`). Repeatable.",
        metavar="METRIC=LIMIT",
        rich_help_panel="Measuring and budgets",
    ),
]


def show_version(wanted: bool) -> None:
    """Print the version and end, if `--version` is given."""
    if wanted:
        typer.echo(f"edge {__version__}")
        raise typer.Exit


def one_model(given: str | None, flag: str | None) -> str:
    """The model that was named, in front or by its flag; UsageError if both are and differ."""
    if given is not None and flag is not None and given != flag:
        raise UsageError(f"Two models are given: {given!r} and --model {flag!r}.", "Give one.")
    return given or flag or DEFAULT_MODEL


def one_recipe(recipe: str | None, precision: str | None) -> str | None:
    """The recipe that was named, by its name or by what people call its precision; UsageError if both are given."""
    if precision is None:
        return recipe
    if recipe is not None:
        raise UsageError(f"--precision {precision} and --recipe {recipe} are given.", "Give one.")
    if precision not in PRECISIONS:
        raise UsageError(f"Unknown precision {precision!r}. {suggest(precision, PRECISIONS)}", "--recipe has others.")
    return PRECISIONS[precision]


def job_fields(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Job from a command's parameters by name; those of the scheme become its changes."""
    fields = {name: value for name, value in given.items() if name in Job.model_fields}
    fields["model"] = one_model(given["given"], given["model"])
    fields["recipe"] = one_recipe(given["recipe"], given["precision"])
    scheme = {name: given[name] for name in ("block_size", "cache", "per_channel") if given[name] is not None}
    scheme |= {"nodes_to_exclude": given["nodes_to_exclude"]} if given["nodes_to_exclude"] else {}
    several = {name: tuple(given[name] or ()) for name in ("training_data", "eval_data")}
    return {**fields, **several, "scheme": scheme, **_amounts(given)}


_CHECKED = ("output", "baseline", "store", "reference", "runner", "device_report", "previous")


def check_fields(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `api.check` from a command's parameters by name; the metric as its two flags."""
    fields = {name: given[name] for name in _CHECKED}
    return {**fields, **_amounts(given), "metric": (given["metric"], given["references"])}


def _amounts(given: dict[str, Any]) -> dict[str, dict[str, float]]:
    limits, tolerances = given.get("budget"), given.get("tolerance")
    return {"budgets": parse_amounts(limits, "budget"), "tolerances": parse_amounts(tolerances, "tolerance")}


def parse_amounts(given: list[str] | None, flag: str) -> dict[str, float]:
    """`["bundle_mb=20"]` -> `{"bundle_mb": 20.0}`; UsageError if one is not of that form. `flag`: its name."""
    amounts: dict[str, float] = {}
    for item in given or []:
        name, equals, amount = item.partition("=")
        if name in amounts:
            raise UsageError(f"--{flag} {name!r} is given twice.", "Give each once.")
        try:
            amounts[name] = float(amount)
        except ValueError:
            equals = ""
        if not equals:
            what = "LIMIT" if flag == "budget" else "AMOUNT"
            raise UsageError(f"--{flag} {item!r} is not METRIC={what}.", f"For example: --{flag} bundle_mb=20.")
    return amounts
