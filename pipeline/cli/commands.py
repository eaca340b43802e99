"""The commands of `edge` and their flags. They call the API and print; no work is done here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import device_commands
from pipeline.cli import options as flag
from pipeline.config.job import DEFAULT_TARGET

if TYPE_CHECKING:
    from pipeline.devices.runner import Runner

app = typer.Typer(
    name="edge",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(device_commands.app, name="devices")


@app.callback()
def common(
    version: Annotated[  # its callback does it
        bool, typer.Option("--version", "-V", help="Show the version.", is_eager=True, callback=flag.show_version)
    ] = False,
) -> None:
    """Make a PyTorch, Hugging Face or ONNX model fit a phone, a car chip or a robot board."""


@app.command()
def export(  # noqa: PLR0913  # one parameter per flag is how typer reads them
    given: flag.Given = None,
    model: flag.Model = None,
    target: flag.Target = DEFAULT_TARGET,
    recipe: flag.Recipe = None,
    precision: flag.Precision = None,
    output: flag.Output = None,
    task: flag.Task = None,
    opset: flag.Opset = None,
    min_onnxruntime: flag.MinOnnxruntime = None,
    layout: flag.Layout = None,
    format: flag.Format = "onnx",  # noqa: A002  # the flag's name
    batch_size: flag.BatchSize = None,
    sequence_length: flag.SequenceLength = None,
    threads: flag.Threads = None,
    runner: flag.Runner = None,
    trust_remote_code: flag.TrustRemoteCode = False,
    allow_pickle: flag.AllowPickle = False,
    calibration_data: flag.CalibrationData = None,
    calibration_samples: flag.CalibrationSamples = None,
    random_calibration: flag.RandomCalibration = False,
    training_data: flag.TrainingData = None,
    eval_data: flag.EvalData = None,
    golden_from: flag.GoldenFrom = "data",
    text_column: flag.TextColumn = None,
    label_column: flag.LabelColumn = None,
    save_model: flag.SaveModel = False,
    block_size: flag.BlockSize = None,
    cache: flag.Cache = None,
    per_channel: flag.PerChannel = None,
    nodes_to_exclude: flag.NodesToExclude = None,
    metric: flag.Metric = None,
    references: flag.References = None,
    budget: flag.Budgets = None,
    baseline: flag.Baseline = None,
    tolerance: flag.Tolerances = None,
    store: flag.Store = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what of it is cached.")] = False,
    json: flag.Json = False,
    verbose: flag.Verbose = False,
    debug: flag.Debug = False,  # read by main()
) -> None:
    """Take a model all the way to a gated bundle: compress, quantize, export, check."""
    from pipeline.cli.export import dry, run  # noqa: PLC0415  # the help must not wait for numpy and ONNX

    fields = flag.job_fields(locals())
    if dry_run:
        dry(fields, store, json)
    else:
        raise typer.Exit(run(fields, store, json, verbose))


@app.command()
def compare(  # noqa: PLR0913  # as export
    given: flag.Given = None,
    model: flag.Model = None,
    target: flag.Target = DEFAULT_TARGET,
    recipe: flag.Recipe = None,
    precision: flag.Precision = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Plain scheme to compare with, like w4a8 or w4a8-b64. Repeatable.", show_default="all"),
    ] = None,
    fail_if_dominated: Annotated[
        bool, typer.Option("--fail-if-dominated", help="Exit with 1 if a plain scheme dominates, 4 if unknown.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            *("-o", "--output"),
            help="Folder for compare.json and compare.html.",
            show_default="artifacts/...",
            parser=flag.place,
            metavar="PATH",
        ),
    ] = None,
    task: flag.Task = None,
    opset: flag.Opset = None,
    min_onnxruntime: flag.MinOnnxruntime = None,
    batch_size: flag.BatchSize = None,
    sequence_length: flag.SequenceLength = None,
    threads: flag.Threads = None,
    runner: flag.Runner = None,
    trust_remote_code: flag.TrustRemoteCode = False,
    allow_pickle: flag.AllowPickle = False,
    calibration_data: flag.CalibrationData = None,
    calibration_samples: flag.CalibrationSamples = None,
    random_calibration: flag.RandomCalibration = False,
    training_data: flag.TrainingData = None,
    eval_data: flag.EvalData = None,
    text_column: flag.TextColumn = None,
    label_column: flag.LabelColumn = None,
    block_size: flag.BlockSize = None,
    cache: flag.Cache = None,
    per_channel: flag.PerChannel = None,
    nodes_to_exclude: flag.NodesToExclude = None,
    metric: flag.Metric = None,
    references: flag.References = None,
    store: flag.Store = None,
    json: flag.Json = False,
    verbose: flag.Verbose = False,
    debug: flag.Debug = False,
) -> None:
    """Measure a recipe beside plain quantization without passes, at the same bytes and at the same latency.

    Exits with 0 when it ran, whatever it found. Flags for the scheme change the recipe's, not those that it is
    compared with.
    """
    from pipeline.cli.compare import run  # noqa: PLC0415

    fields = flag.job_fields(locals())
    raise typer.Exit(run(fields, against or (), fail_if_dominated, store, json, verbose))


@app.command()
def check(  # noqa: PLR0913  # as export
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.", parser=flag.place, metavar="BUNDLE")],
    target: flag.Target = DEFAULT_TARGET,
    output: flag.Output = None,
    metric: flag.Metric = None,
    references: flag.References = None,
    reference: flag.Reference = None,
    budget: flag.Budgets = None,
    baseline: flag.Baseline = None,
    tolerance: flag.Tolerances = None,
    runner: flag.Runner = None,
    device_report: flag.DeviceReport = None,
    previous: flag.Previous = None,
    store: flag.Store = None,
    json: flag.Json = False,
    debug: flag.Debug = False,
) -> None:
    """Measure any bundle against any target's budgets, without rebuilding it."""
    from pipeline.cli.export import recheck  # noqa: PLC0415

    raise typer.Exit(recheck(bundle, target, flag.check_fields(locals()), json))


@app.command()
def gate(  # noqa: PLR0913  # as export
    given: flag.Given = None,
    model: flag.Model = None,
    target: flag.Target = DEFAULT_TARGET,
    recipe: flag.Recipe = None,
    output: flag.Output = None,
    metric: flag.Metric = None,
    references: flag.References = None,
    reference: flag.Reference = None,
    budget: flag.Budgets = None,
    baseline: flag.Baseline = None,
    tolerance: flag.Tolerances = None,
    runner: flag.Runner = None,
    device_report: flag.DeviceReport = None,
    previous: flag.Previous = None,
    store: flag.Store = None,
    json: flag.Json = False,
    debug: flag.Debug = False,
) -> None:
    """Re-check the bundle that an export of MODEL for TARGET left, and write its reports anew."""
    from pipeline.cli.export import recheck  # noqa: PLC0415

    folder = _exported(flag.one_model(given, model), target, recipe, output)
    fields = {**flag.check_fields(locals()), "output": folder}
    raise typer.Exit(recheck(folder / "bundle", target, fields, json))


def _exported(model: str, target: str, recipe: str | None, output: Path | None) -> Path:
    """Where an export of `model` for `target` left its bundle and reports."""
    if output is not None:
        return output
    from pipeline.config.loading import load_recipe, load_target  # noqa: PLC0415
    from pipeline.report.output_folder import default_output  # noqa: PLC0415
    from pipeline.source.model import model_name  # noqa: PLC0415

    profile = load_target(target)
    return default_output(profile.name, model_name(model), load_recipe(recipe or profile.recipe).name)


@app.command()
def tune(
    given: flag.Given = None,
    model: flag.Model = None,
    target: flag.Target = DEFAULT_TARGET,
    recipe: flag.Recipe = None,
    output: flag.Output = None,
    write: Annotated[bool, typer.Option("--write", help="Put what helps into the target's file here.")] = False,
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Find by measurement which of ONNX Runtime's own optimizations slow an exported bundle down."""
    from pipeline.cli.tune import run  # noqa: PLC0415

    run(_exported(flag.one_model(given, model), target, recipe, output) / "bundle", target, write)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.", parser=flag.place, metavar="BUNDLE")],
    runner: Annotated[
        str | None,
        typer.Option(help="Where it answers, as of `edge check`.", show_default="host", metavar="NAME[:PLACE]"),
    ] = None,
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Check every byte of a bundle against its manifest, and what it answers against its golden samples."""
    from pipeline.bundle.verify import verify as verified  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    worst = verified(bundle, None if runner is None else _runner(runner))
    where = "here" if runner is None else f"on {runner}"
    output_console().print(
        f"{bundle} is whole, and gives its golden outputs {where} (largest difference: {worst:.2g} of the largest "
        "value).",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _runner(name: str) -> Runner:
    """A runner by its name and place, of the default target where it asks for one."""
    from pipeline.config.loading import load_target  # noqa: PLC0415
    from pipeline.devices import runner_of  # noqa: PLC0415

    return runner_of(load_target(DEFAULT_TARGET).model_copy(update={"runner": name}))


@app.command()
def generate(  # noqa: PLR0913  # as export
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.", parser=flag.place, metavar="BUNDLE")],
    prompt: Annotated[str, typer.Argument(help="The text to continue or to answer.", metavar="PROMPT")],
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="The most tokens to write.", min=1)] = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", help="0: always the most likely token.", min=0.0, max=100.0)
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Draw from the tokens with this share of probability.", min=1e-9, max=1.0)
    ] = 0.95,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn.", min=0)] = 0,
    chat: Annotated[
        bool, typer.Option("--chat/--no-chat", help="Ask as the model's chat template says, if there is one.")
    ] = True,
    threads: flag.Threads = None,
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Let a bundle of a language model continue a text, or answer a question."""
    from pipeline.cli.generate import Settings, run  # noqa: PLC0415

    run(bundle, prompt, Settings(max_tokens, temperature, top_p, seed, chat, threads))


@app.command()
def plan(
    model: Annotated[
        str,
        typer.Argument(help="A folder, a config.json, or a hub id (only its config.json is fetched).", metavar="MODEL"),
    ],
    target: flag.Target = DEFAULT_TARGET,
    context: Annotated[
        int | None, typer.Option("--context", help="Tokens of a text at most.", min=1, show_default="the target's")
    ] = None,
    device_memory: Annotated[
        str | None,
        typer.Option("--device-memory", help="Memory of one device, like 80GB.", show_default="the target's"),
    ] = None,
    cache: flag.Cache = None,
    json: flag.Json = False,
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Predict size, memory and speed of a language model from its config.json, for every scheme.

    Exits with 0 if a scheme fits the target's required budgets, 1 if none can, 4 if the intervals leave it open.
    """
    from pipeline.cli.plan import run  # noqa: PLC0415

    raise typer.Exit(run(model, target, context, device_memory, cache, json))


@app.command()
def analyze(  # as export
    model: Annotated[
        Path, typer.Argument(help="An ONNX file or a bundle's folder.", parser=flag.place, metavar="MODEL")
    ],
    target: flag.Target = DEFAULT_TARGET,
    batch_size: flag.BatchSize = None,
    sequence_length: flag.SequenceLength = None,
    threads: flag.Threads = None,
    json: flag.Json = False,
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Estimate a model's latency and power on a target, and tell which execution providers would run it.

    The graph runs a few times here; nothing is compressed, judged or kept.
    """
    from pipeline.cli.analyze import run  # noqa: PLC0415

    run(model, target, json, batch_size=batch_size, sequence_length=sequence_length, threads=threads)


@app.command()
def targets() -> None:
    """List the device profiles and their budgets."""
    from pipeline.cli.lists import list_targets  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    list_targets(output_console())


@app.command()
def recipes() -> None:
    """List the recipes."""
    from pipeline.cli.lists import list_recipes  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    list_recipes(output_console())


@app.command()
def schema(
    name: Annotated[str, typer.Argument(help="recipe, target, report or manifest.", metavar="NAME")],
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Print the JSON schema of recipes, targets, reports or manifests, for editors and for what reads them."""
    from pipeline.cli.schema import schema_of  # noqa: PLC0415
    from pipeline.core.digest import pretty_json  # noqa: PLC0415

    typer.echo(pretty_json(schema_of(name)))


@app.command()
def schemes() -> None:
    """List the quantization schemes."""
    from pipeline.cli.lists import list_schemes  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    list_schemes(output_console())


@app.command()
def formats() -> None:
    """List the number formats that a scheme's overrides can name."""
    from pipeline.cli.lists import list_formats  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    list_formats(output_console())


@app.command()
def budgets() -> None:
    """List the metrics that a target can limit."""
    from pipeline.cli.lists import list_budgets  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    list_budgets(output_console())


@app.command()
def passes(
    name: Annotated[str | None, typer.Argument(help="A pass, or a unit of prune: list its keys.")] = None,
) -> None:
    """List the compression passes with their units, scores and losses, or the keys of one."""
    from pipeline.cli.extensions import describe_pass, list_passes  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    if name is None:
        list_passes(output_console())
    else:
        describe_pass(name, output_console())


@app.command()
def tasks() -> None:
    """List the tasks that models can have."""
    from pipeline.cli.extensions import list_tasks  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    list_tasks(output_console())


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.", parser=flag.place, metavar="BUNDLE")],
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Show what is in a bundle: its files, inputs and outputs, operators and stored tensors."""
    from pipeline.cli.lists import inspect_bundle  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    inspect_bundle(bundle, output_console())


@app.command()
def clean(
    max_size: Annotated[str, typer.Option("--max-size", help="What may stay, like 500MB or 2GB.")] = "0",
    store: flag.Store = None,
    debug: flag.Debug = False,  # noqa: ARG001
) -> None:
    """Shrink the store, the least recently used results first. Nothing that you exported is touched."""
    from pipeline.cli.lists import clean_store  # noqa: PLC0415
    from pipeline.cli.terminal import output_console  # noqa: PLC0415

    clean_store(max_size, store, output_console())
