"""What a model would take on a target and who would run it, from one run here: nothing is compressed or judged."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto, helper

from pipeline.bundle.example_feed import example_feed
from pipeline.bundle.graph import read_graphs
from pipeline.bundle.manifest import read_manifest
from pipeline.bundle.records import bundle_graphs, read_metadata
from pipeline.checks.coverage import Ran
from pipeline.checks.estimates import estimates_of
from pipeline.checks.left_in_float import Reasons, Stored
from pipeline.checks.npu import compiled, fp16_advice
from pipeline.checks.providers import QNN, provider_coverage
from pipeline.checks.typed_values import Shape, ran_shapes
from pipeline.checks.weights import Graph
from pipeline.checks.work import work_of
from pipeline.config.socs import soc_called
from pipeline.config.target import Shape as InputShape
from pipeline.config.target import Target
from pipeline.core.errors import StageError, UsageError
from pipeline.core.report_types import ProviderCoverage
from pipeline.core.types import Figure, StrictModel
from pipeline.devices.host_runner import HOST
from pipeline.devices.ort_profile import profile
from pipeline.devices.runner import subject_of
from pipeline.devices.worker import Feed
from pipeline.forecast.latency import OutOfRange
from pipeline.forecast.work import Work
from pipeline.graph.files import only
from pipeline.quantize.schemes import SCHEMES
from pipeline.runtime.feeds import write_feed
from pipeline.source.onnx_checks import check_type
from pipeline.source.onnx_file import read_graph

_SEED = 0
NEWEST = "SM8750"
"""The SoC whose NPU is tried where the target names none: what a new phone has."""
_MOST_VALUES = 2**27
"""Of an input: a picture of 6,000 x 7,000 pixels."""


class Analysis(StrictModel):
    """`shapes`: of the inputs that it ran with; `figures`: estimates by the names of budgets; `out_of_range`: why there
    are none; `advice`: what published rows say of such models."""

    model: str
    target: str
    shapes: dict[str, tuple[int, ...]]
    work: Work
    figures: dict[str, Figure]
    out_of_range: str = ""
    providers: tuple[ProviderCoverage, ...]
    advice: tuple[str, ...] = ()


def analyze(path: Path, target: Target) -> Analysis:
    """Of an ONNX file, float or quantized, or of a bundle with one graph that writes no texts.

    The graph runs a few times here, on values that are drawn where it is a file.
    UsageError if it is neither, or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="edge-analyze-") as scratch:
        file, feed = _opened(path, target.shape)
        inputs, optimized = Path(scratch) / "inputs.npz", Path(scratch) / "optimized.onnx"
        write_feed(inputs, feed)
        try:
            records = profile(HOST, subject_of(file, inputs, target.runtime), optimized, runs=2)
        except StageError as error:
            raise error if path.is_dir() else _not_run(error, feed) from error
        shapes = {name: array.shape for name, array in feed.items()} | _shapes(file, inputs, target, optimized)
        ran = Ran(onnx.load(optimized, load_external_data=False), records, Stored(file, Reasons()))
    model = onnx.load(file, load_external_data=False)
    work = work_of([ran], [model])
    weights = Graph(model).weights
    found = estimates_of(work, weights, None, SCHEMES.get("fp32"), target)
    figures = {name: figure for name, figure in found.items() if isinstance(figure, Figure)}
    reasons = {figure.reason for figure in found.values() if isinstance(figure, OutOfRange)}
    return Analysis(
        model=path.name,
        target=target.name,
        shapes={name: array.shape for name, array in feed.items()},
        work=work,
        figures=figures,
        out_of_range="; ".join(reasons),
        providers=_providers(file, shapes, target),
        advice=fp16_advice(work, weights),
    )


def _shapes(file: Path, inputs: Path, target: Target, beside: Path) -> dict[str, Shape]:
    """Of what operators give, where the graph runs as it is (types that ONNX Runtime has no kernels for do not)."""
    plain = beside.with_name("plain.onnx")
    try:
        records = profile(HOST, subject_of(file, inputs, target.runtime), plain, runs=1, warmup=0, optimize=False)
    except StageError:
        return {}
    return ran_shapes(Graph(onnx.load(plain, load_external_data=False)), records)


def _providers(file: Path, shapes: Mapping[str, Shape], target: Target) -> tuple[ProviderCoverage, ...]:
    """As listed; what QNN takes by compiling for the target's first SoC with an NPU, where QNN is set up here."""
    listed = provider_coverage([onnx.load(file, load_external_data=False)], shapes)
    soc = soc_called(target.npu.socs[0] if target.npu else NEWEST)
    return tuple(compiled(each, onnx.load(file), shapes, soc) if each.provider == QNN else each for each in listed)


def _not_run(error: StageError, feed: Feed) -> StageError:
    """The inputs were drawn: whoever gave the model knows better which sizes it takes."""
    sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
    return StageError(
        f"{error.message.rstrip('.')}. The inputs were drawn: {sizes}.",
        "Axes that the file leaves open have the size of --sequence-length, the first --batch-size: name others that "
        "the model takes, or export it and analyze the bundle.",
    )


def _opened(path: Path, shape: InputShape) -> tuple[Path, Feed]:
    """The file of the graph, and inputs for it."""
    if path.is_dir():
        read_manifest(path)
        read_graphs(path)
        if read_metadata(path).language is not None:
            raise UsageError(f"{path} holds a language model.", "`edge plan` says what those take on a target.")
        return only(bundle_graphs(path), "`edge analyze`"), example_feed(path, shape)
    if not path.is_file():
        raise UsageError(f"There is no model {str(path)!r}.", "Give an ONNX file or a bundle's folder.")
    return path, _drawn(read_graph(path), shape)


def _drawn(model: ModelProto, shape: InputShape) -> Feed:
    """Values for every input: an axis without a size has the batch's if it is the first, else that of a text.
    UsageError for inputs that are no numbers, or too large."""
    generator, constants = np.random.default_rng(_SEED), {tensor.name for tensor in model.graph.initializer}
    feed: Feed = {}
    for value in model.graph.input:
        if value.name not in constants:
            check_type(value, model.graph.name, "input")
            dims = _dims(value, shape)
            if math.prod(dims) > _MOST_VALUES:
                raise UsageError(
                    f"The input {value.name!r} would have {math.prod(dims):,} values, of at most {_MOST_VALUES:,}.",
                    "Give axes without a size smaller ones in the target's [shape].",
                )
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            floats = np.issubdtype(dtype, np.floating)
            feed[value.name] = (generator.random(dims) if floats else np.ones(dims)).astype(dtype)
    return feed


def _dims(value: ValueInfoProto, shape: InputShape) -> tuple[int, ...]:
    given = value.type.tensor_type.shape.dim
    return tuple(
        axis.dim_value if axis.dim_value > 0 else shape.sequence_length if place else shape.batch_size
        for place, axis in enumerate(given)
    )
