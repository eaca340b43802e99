"""The one place that makes ONNX Runtime sessions, so that everything is measured as an app would run it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state

from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError, first_line
from pipeline.core.memory import says_out_of_memory
from pipeline.core.untrusted import LOOP_SECONDS

DISABLED_OPTIMIZERS = "optimization.disable_specified_optimizers"
_ERROR = 3  # ONNX Runtime's log severity


class SessionError(StageError):
    """ONNX Runtime refused a graph or a sample, in words."""


_OWN = [kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type)]
SESSION_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in _OWN if issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
    SessionError,
)
"""What making or running a session raises: an exception class per status code of ONNX Runtime, which share no base, and
what its Python side raises for inputs that do not fit."""


def make_session(
    model: Path,
    runtime: Runtime,
    *,
    profile_prefix: Path | None = None,
    optimized_model: Path | None = None,
    measured: bool = False,
) -> ort.InferenceSession:
    """A session of the ONNX file `model`, sequential and fully optimized, set up as `runtime` says.

    Disabled optimizers go in as the session config entry that apps in any language can set, not as the
    Python-only keyword. `profile_prefix`: record a profile in files that start so; `optimized_model`: write
    the graph that will run there (without the weights that lie in external files); `measured`: bare, in a process that
    has a time limit of its own.
    UsageError if a provider is not in this build of ONNX Runtime; StageError if it cannot run the graph.
    """
    check_providers(runtime.providers)
    options = session_options(runtime)
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = os.fspath(profile_prefix)
    if optimized_model is not None:
        options.optimized_model_filepath = os.fspath(optimized_model)
    try:
        return Session(model, options, runtime.providers, bounded=not measured)
    except SESSION_ERRORS as error:
        raise refusal(f"load {model.name}", error) from error


class Session(ort.InferenceSession):  # type: ignore[misc]  # it ships no types
    """A session whose refusal of a sample is a StageError: ids beyond a table, shapes that do not fit each other."""

    def __init__(
        self, model: Path, options: ort.SessionOptions, providers: Sequence[str], bounded: bool = True
    ) -> None:
        super().__init__(os.fspath(model), options, providers=list(providers))
        self._name, self._loops = model.name, bounded and _has_loops(model)

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Outputs in the order of `output_names`. StageError if a graph with loops gives none in `LOOP_SECONDS`."""
        if self._loops and run_options is None:
            return run_within(self, input_feed, LOOP_SECONDS, output_names)
        try:
            return super().run(output_names, input_feed, run_options)
        except SESSION_ERRORS as error:
            remedy = "Check that the samples (ids, shapes, lengths) are what the model takes."
            raise refusal(f"run {self._name} on a sample", error, remedy) from error


def _has_loops(model: Path) -> bool:
    from pipeline.source.onnx_file import has_loops  # noqa: PLC0415  # onnx would count in what a measured process takes

    return has_loops(model)


def refusal(what: str, error: Exception, remedy: str = "") -> MemoryError | SessionError:
    """The error to raise from a session's own: a MemoryError where it ran out of memory, which says nothing about the
    graph or the sample."""
    if says_out_of_memory(str(error)):
        return MemoryError(first_line(error))
    return SessionError(f"ONNX Runtime {ort.__version__} cannot {what}: {first_line(error)}", remedy)


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


def session_options(runtime: Runtime) -> ort.SessionOptions:
    """`runtime` as ONNX Runtime's options; only errors are logged."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = runtime.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERROR
    for key, value in session_config(runtime).items():
        options.add_session_config_entry(key, value)
    return options


def session_config(runtime: Runtime) -> dict[str, str]:
    """All session config entries of `runtime`, with the disabled optimizers: what a bundle must carry."""
    given = runtime.session_config.get(DISABLED_OPTIMIZERS, "")
    disabled = dict.fromkeys([*filter(None, given.split(";")), *runtime.disabled_optimizers])
    entry = {DISABLED_OPTIMIZERS: ";".join(disabled)} if disabled else {}
    return {**runtime.session_config, **entry}


def check_providers(providers: tuple[str, ...]) -> None:
    """UsageError naming the available providers if one of `providers` is not among them."""
    available = ort.get_available_providers()
    missing = [name for name in providers if name not in available]
    if missing:
        raise UsageError(
            f"ONNX Runtime here has no {', '.join(missing)}; it has {', '.join(available)}.",
            "Change `providers` of the target's [runtime], or install the ONNX Runtime package that has it.",
        )


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
