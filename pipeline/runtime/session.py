"""The one place that makes ONNX Runtime sessions, so that everything is measured as an app would run it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError, first_line
from pipeline.core.memory import says_out_of_memory
from pipeline.core.untrusted import LOOP_SECONDS
from pipeline.devices.worker import (
    CHECK_SAMPLES,
    ORT_ERRORS,
    Chain,
    Refusal,
    available_cores,
    cannot,
    fitting,
    kept_dtypes,
    require_providers,
    session_options,
)
from pipeline.graph.files import Graphs, referred_files
from pipeline.source.onnx_file import has_loops


class SessionError(StageError):
    """ONNX Runtime refused a graph or a sample, in words."""


_LARGE = 1_000_000_000
"""Bytes of weights beside a graph from which on its sessions in float read them where they are mapped: packed for the
kernels, they would be in memory once more, and no longer be the file's."""
_AS_STORED = {
    "session.disable_prepacking": "1",
    "optimization.constant_folding_max_output_size_in_bytes": "1000000",
}
"""Neither packed nor widened when the graph is loaded."""

SESSION_ERRORS: tuple[type[Exception], ...] = (*ORT_ERRORS, SessionError)
"""What making or running a session raises."""
_ORT = ".ort"
"""ONNX Runtime's own format, which is not searched for loops: it may have some."""
_SMALL_OUTSIDE = (
    "Small tensors that say shapes and axes must stand in the .onnx file itself: save it again with "
    "onnx.save_model(..., size_threshold=1024)."
)


def make_session(
    model: Path | Graphs, runtime: Runtime, *, optimized_model: Path | None = None
) -> ort.InferenceSession:
    """A session of the ONNX file `model`, or of all graphs of a model as one (see `Chain`), sequential and fully
    optimized, set up as `runtime` says.

    Disabled optimizers go in as the session config entry that apps in any language can set, not as the
    Python-only keyword. `optimized_model`: write the graph that will run there (without the weights that lie in
    external files). What is measured runs in `devices/worker.py` instead, set up alike.
    UsageError if a provider is not in this build of ONNX Runtime; StageError if it cannot run the graph.
    """
    if isinstance(model, Graphs):
        return chained(model.files, model, lambda file: make_session(file, runtime))
    check_providers(runtime.providers)
    options = session_options(runtime.threads, runtime.session_entries)
    _give_back(options, runtime.session_entries)
    if optimized_model is not None:
        options.optimized_model_filepath = os.fspath(optimized_model)
    try:
        return Session(model, options, runtime.providers)
    except SESSION_ERRORS as error:
        raise refusal(f"load {model.name}", error) from error


def _give_back(options: ort.SessionOptions, config: Mapping[str, str]) -> None:
    """Let a session that reads weights as they are stored keep no memory: what an operator widens is as large as they
    are."""
    options.enable_cpu_mem_arena = _AS_STORED.items() - config.items() != set()


def chained(files: Sequence[Path], graphs: Graphs, open_file: Callable[[Path], Any]) -> ort.InferenceSession:
    """The sessions of `files`, which stand for `graphs`, as one (see `Chain`); of a model's only graph, its own."""
    sessions = [open_file(file) for file in files]
    return sessions[0] if len(sessions) == 1 else Chain(sessions, [spec.feeds for spec in graphs])


def parallel_float_session(graphs: Graphs) -> ort.InferenceSession:
    """As `parallel_session`, of graphs in float."""
    return parallel_session(graphs, float_runtime(graphs))


def parallel_session(model: Path | Graphs, runtime: Runtime | None = None) -> ort.InferenceSession:
    """A session on all cores, as `make_session`: for answers, which do not depend on the number of threads."""
    return make_session(model, (runtime or Runtime()).model_copy(update={"threads": available_cores()}))


def float_runtime(graphs: Graphs) -> Runtime:
    """How graphs in float are run: with weights as they lie in their files, if those are large."""
    return Runtime(session_config=_AS_STORED if are_large(graphs) else {})


def are_large(graphs: Graphs) -> bool:
    """Whether graphs in float have so many weights that memory may not hold them."""
    return any(map(_is_large, graphs.files))


def is_large(weights: int) -> bool:
    """Whether a graph in float has so many bytes of weights that memory may not hold them."""
    return weights > _LARGE


def _is_large(model: Path) -> bool:
    weights = model.with_name(f"{model.name}.data")
    return bool(referred_files(model)) or (weights.is_file() and is_large(weights.stat().st_size))


def default_session(model: Path, *, mem_pattern: bool = True) -> Session:
    """A session of a graph that is looked into, not measured: ONNX Runtime's defaults on this CPU. `mem_pattern`:
    whether it plans memory for every shape of inputs, which pays if there are few."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = mem_pattern
    return Session(model, options, ["CPUExecutionProvider"])


def open_given(model: Path) -> ort.InferenceSession:
    """A plain session that logs nothing, of a file whose errors are told in ONNX Runtime's own words. StageError if it
    refuses the file."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for key, value in _AS_STORED.items() if _is_large(model) else ():
        options.add_session_config_entry(key, value)
        _give_back(options, _AS_STORED)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except SESSION_ERRORS as error:
        raise StageError(
            f"ONNX Runtime {ort.__version__} cannot load {model.name}: {first_line(error)}",
            _SMALL_OUTSIDE
            if "external data into raw data" in str(error)
            else "An app could not load it either: export or save it again without what is named there.",
        ) from error


class Session(ort.InferenceSession):  # type: ignore[misc]  # it ships no types
    """A session whose refusal of a sample is a StageError: ids beyond a table, shapes that do not fit each other."""

    def __init__(self, model: Path, options: ort.SessionOptions, providers: Sequence[str]) -> None:
        super().__init__(os.fspath(model), options, providers=list(providers))
        self._name, self._loops = model.name, model.suffix == _ORT or has_loops(model)
        self._kept = kept_dtypes(self)

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Outputs in the order of `output_names`. StageError if a graph with loops gives none in `LOOP_SECONDS`."""
        input_feed = fitting(self._kept, input_feed)
        if self._loops and run_options is None:
            return run_within(self, input_feed, LOOP_SECONDS, output_names)
        try:
            return super().run(output_names, input_feed, run_options)
        except SESSION_ERRORS as error:
            raise refusal(f"run {self._name} on a sample", error, CHECK_SAMPLES) from error


def refusal(what: str, error: Exception, remedy: str = "") -> MemoryError | SessionError:
    """The error to raise from a session's own: a MemoryError where it ran out of memory, which says nothing about the
    graph or the sample."""
    if says_out_of_memory(str(error)):
        return MemoryError(first_line(error))
    return SessionError(cannot(what, error), remedy)


def run_within(
    session: ort.InferenceSession, feed: Mapping[str, Any], seconds: float, names: Sequence[str] | None = None
) -> list[Any]:
    """The outputs `names`, or all. StageError if they are not there after `seconds`: a loop may never end."""
    options = ort.RunOptions()
    watch = threading.Timer(seconds, setattr, (options, "terminate", True))
    watch.start()
    try:
        return session.run(names, feed, options)
    except SESSION_ERRORS as error:
        if options.terminate:
            raise StageError(
                f"One inference took longer than {seconds:g} s and was stopped.", "Does a loop of the graph end?"
            ) from error
        raise
    finally:
        watch.cancel()


def check_providers(providers: Sequence[str]) -> None:
    """UsageError naming the available providers if one of `providers` is not among them."""
    try:
        require_providers(providers)
    except Refusal as refused:
        raise UsageError(refused.message, refused.remedy) from refused
