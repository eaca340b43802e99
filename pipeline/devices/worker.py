"""The measuring program: one file that needs only Python, numpy and onnxruntime, so that it also runs on a board.

`python worker.py` reads one request as JSON from stdin and writes one result as JSON to stdout; `python worker.py
REQUEST REPORT`, as a person runs it on a phone, reads a file and writes one. It loads no model library, so that what it
measures is the model's and not its surroundings'. It reads what the system tells, and leaves the interpretation to its
caller; what the system does not tell is null, or the result says why.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, ClassVar, TypeAlias

import numpy as np

# ONNX Runtime reports sessions to its maker unless this is set before it loads; nothing here phones home.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state

Feed: TypeAlias = dict[str, NDArray[Any]]
"""Input name -> array."""


@dataclass(frozen=True)
class Part:
    """A further graph of a model. `feeds`: input -> what it is given: an input of the model, or an output of a graph
    before; an input that is not listed is given what has its own name."""

    model: str
    feeds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plugin:
    """An execution provider that a `library` beside ONNX Runtime brings, with its options."""

    name: str
    library: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A model under a runtime. `inputs`: a file for `read_feed`; `config`: ONNX Runtime's session config entries;
    `then`: the graphs that run after `model`, of a model that has several; `plugin`: what goes before `providers`."""

    model: str
    inputs: str
    threads: int = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    config: Mapping[str, str] = field(default_factory=dict)
    then: tuple[Part, ...] = ()
    plugin: Plugin | None = None


@dataclass(frozen=True)
class Language:
    """What a language model's graph keeps of the tokens before: `past` inputs and `present` outputs [1, heads, tokens,
    size] of `dtype`, of texts up to `longest` tokens."""

    heads: int
    size: int
    longest: int
    past: Sequence[str]
    present: Sequence[str]
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One measurement of one or several models; in JSON, `mode` tells which kind it is. `program`: the file that
    answers it."""

    mode: ClassVar[str]
    program: ClassVar[str] = __file__
    subjects: tuple[Subject, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Timing(Request):
    """Time single inferences of the subjects, which take turns in rounds, each round in an order drawn from `seed`.

    Up to `blocks` times the models are loaded anew. A block has at least `min_rounds`, and goes on until
    `block_seconds`, or `enough_rounds` and half of that time; but at `slow_seconds` it stops after `fewest_rounds`.
    After `max_seconds` no block begins beyond `fewest_blocks`.
    """

    mode: ClassVar[str] = "timing"
    fewest_blocks: int
    fewest_rounds: int
    seed: int = 0
    blocks: int = 5
    warmup: int = 10
    warmup_seconds: float = 0.3
    min_rounds: int = 10
    enough_rounds: int = 200
    block_seconds: float = 0.5
    slow_seconds: float = 3.0
    max_seconds: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Memory(Request):
    """Load the only subject and run it `runs` times, watching the peaks of resident memory; a `language` model reads
    its inputs as a prompt, and then the last token of its context. `group`: a control group to enter before that."""

    mode: ClassVar[str] = "memory"
    runs: int = 3
    language: Language | None = None
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Fit(Request):
    """Do what `Memory` does in a process that may take `limit_mb` beyond what it has before the session."""

    mode: ClassVar[str] = "fit"
    limit_mb: float
    runs: int = 3
    language: Language | None = None


@dataclass(frozen=True, kw_only=True)
class Decoding(Request):
    """Time the only subject, a language model: prompts of so many tokens, and single tokens behind `places` others.
    Each goes on for `enough` runs, or after `fewest` until `seconds` have passed."""

    mode: ClassVar[str] = "decoding"
    language: Language
    prompts: Sequence[int]
    places: Sequence[int]
    enough: int = 64
    fewest: int = 5
    seconds: float = 3.0


@dataclass(frozen=True, kw_only=True)
class Profile(Request):
    """Profile `runs` inferences of the only subject after `warmup`; the graph that ran goes to `optimized_model`. Not
    to `optimize` runs it as it is."""

    mode: ClassVar[str] = "profile"
    optimized_model: str
    warmup: int = 5
    runs: int = 20
    optimize: bool = True


@dataclass(frozen=True, kw_only=True)
class Answers(Request):
    """Run the only subject on `count` feeds, and write its outputs `names` (all, where none is named) to `outputs`.

    The subject's `inputs` file has the arrays of each feed one after the other (.npy), in the order of `inputs`; what
    is written has those of each answer likewise. It ends early once `most_bytes` are written. `carry`: input -> the
    output that is its value in the next run, unless that run's number is among `fresh`.
    """

    mode: ClassVar[str] = "answers"
    count: int
    inputs: Sequence[str]
    outputs: str
    names: Sequence[str] = ()
    carry: Mapping[str, str] = field(default_factory=dict)
    fresh: Sequence[int] = ()
    most_bytes: int = 64_000_000


@dataclass(frozen=True, kw_only=True)
class Series(Request):
    """Answer `requests` (as JSON has them) one after the other, each in a process of its own, for somebody who carries
    the report back by hand. `bundle`: the digest of what is measured; `files`: those of its graphs, by their names."""

    mode: ClassVar[str] = "series"
    bundle: str
    files: Sequence[str]
    requests: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Marked(Request):
    """Run the only subject `runs` times after a first run, with a mark before each and after the last, for what counts
    the instructions between marks (see arm64/count.c)."""

    mode: ClassVar[str] = "marked"
    runs: int = 1


@dataclass(frozen=True, kw_only=True)
class Facts(Request):
    """Tell what this machine is; there are no subjects."""

    mode: ClassVar[str] = "facts"


class Refusal(Exception):  # noqa: N818  # an answer
    """What cannot be measured. `kind`: `error` of the request, or `refused` by ONNX Runtime."""

    def __init__(self, kind: str, message: str, remedy: str = "") -> None:
        self.kind, self.message, self.remedy = kind, message, remedy
        super().__init__(message)


Modes: TypeAlias = Mapping[str, tuple[Any, Callable[[Any], dict[str, Any]]]]
"""By mode: the class of its requests, and what answers them."""


def main(modes: Modes | None = None) -> int:
    """Answer a request on stdin, or in a file. `modes`: those that another program has in place of this one's."""
    if len(sys.argv) == 3:
        return _by_hand(*map(Path, sys.argv[1:]))
    _end_with_parent()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # libraries of plug-ins print what they like, when they like
        out.write(json.dumps(_answer(json.loads(sys.stdin.read()), modes or _MODES)) + "\n")
    return 0


def _by_hand(request: Path, report: Path) -> int:
    """Answer the request in a file, whose names are those of files beside it, into another."""
    report = report.absolute()
    try:
        os.chdir(request.absolute().parent)
        asked = json.loads(Path(request.name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{request} is no request that can be read: {error}")  # noqa: T201  # for a person
        return 2
    result = _answer(asked, _MODES)
    report.write_text(json.dumps(result), encoding="utf-8")
    print(result.get("error") or result.get("refused") or f"Written: {report}")  # noqa: T201  # for a person
    return 1 if "error" in result or "refused" in result else 0


def _answer(fields: dict[str, Any], modes: Modes) -> dict[str, Any]:
    kind, measure = modes[fields.pop("mode")]
    subjects = tuple(map(_read_subject, fields.pop("subjects")))
    if fields.get("language"):
        fields["language"] = Language(**fields["language"])
    try:
        return measure(kind(subjects=subjects, **fields))
    except Refusal as refusal:
        return {refusal.kind: refusal.message, "remedy": refusal.remedy}


def _read_subject(fields: dict[str, Any]) -> Subject:
    plugin = fields.get("plugin")
    parts = {"then": tuple(Part(**part) for part in fields.get("then", ())), "plugin": plugin and Plugin(**plugin)}
    return Subject(**{**fields, **parts})


def _end_with_parent() -> None:
    """Have Linux kill this process when the one that started it ends (as core/parent.py, which is not there)."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def read_feed(path: str | Path) -> Feed:
    """The inputs of one inference: an .npz file of numbered arrays, and of their names as JSON."""
    with np.load(path, allow_pickle=False) as arrays:
        names = json.loads(arrays["names"].tobytes())
        return {name: arrays[str(number)] for number, name in enumerate(names)}


_resource: Any = import_module("resource") if find_spec("resource") else None
_STAT, _CPUINFO = Path("/proc/stat"), Path("/proc/cpuinfo")
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

# Sessions

_OWN = [kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type)]
ORT_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in _OWN if issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)
"""What making or running a session raises: an exception class per status code of ONNX Runtime, which share no base, and
what its Python side raises for inputs that do not fit."""
CHECK_SAMPLES = "Check that the samples (ids, shapes, lengths) are what the model takes."
_SPINNING_STOP = "session.force_spinning_stop"
_MARK = 0x5EED
_ERROR = 3  # ONNX Runtime's log severity


def session_options(threads: int, config: Mapping[str, str]) -> ort.SessionOptions:
    """Sequential and fully optimized, with the session config entries `config`; only errors are logged."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERROR
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    return options


def require_providers(providers: Sequence[str]) -> None:
    """Refusal naming the available providers if one of `providers` is not among them."""
    available = ort.get_available_providers()
    missing = [name for name in providers if name not in available]
    if missing:
        raise Refusal(
            "error",
            f"ONNX Runtime here has no {', '.join(missing)}; it has {', '.join(available)}.",
            "Change `providers` of the target's [runtime], or install the ONNX Runtime package that has it.",
        )


def add_plugin(options: ort.SessionOptions, plugin: Plugin) -> None:
    """Let sessions use the plug-in's provider before those that ONNX Runtime has itself."""
    try:
        ort.register_execution_provider_library(plugin.name, plugin.library)
        devices = [device for device in ort.get_ep_devices() if device.ep_name == plugin.name]
        options.add_provider_for_devices(devices[:1], dict(plugin.options))
    except ORT_ERRORS as error:
        raise Refusal("refused", cannot(f"use {plugin.name} of {Path(plugin.library).name}", error)) from error


def cannot(what: str, error: Exception) -> str:
    """What ONNX Runtime refuses, with the first line of its error."""
    lines = str(error).strip().splitlines()
    return f"ONNX Runtime {ort.__version__} cannot {what}: {lines[0] if lines else type(error).__name__}"


class _Session(ort.InferenceSession):  # type: ignore[misc]  # it ships no types
    """A session whose errors are Refusals."""

    def __init__(self, model: str, subject: Subject, options: ort.SessionOptions) -> None:
        require_providers(subject.providers)
        self._name = Path(model).name
        given = {} if subject.plugin else {"providers": list(subject.providers)}  # ONNX Runtime takes one of the two
        try:
            super().__init__(model, options, **given)
        except ORT_ERRORS as error:
            raise Refusal("refused", cannot(f"load {self._name}", error)) from error

    def run(self, output_names: Sequence[str] | None, input_feed: Feed, run_options: Any = None) -> list[Any]:
        try:
            return super().run(output_names, input_feed, run_options)
        except ORT_ERRORS as error:
            raise Refusal("refused", cannot(f"run {self._name} on a sample", error), CHECK_SAMPLES) from error


@dataclass(frozen=True)
class Value:
    """An input or output of a `Chain`, as ONNX Runtime describes those of a session."""

    name: str
    type: str
    shape: list[Any]


class Chain:
    """Sessions of a model's graphs that run one after the other, used as one session: its inputs are those that no
    graph before gives, its outputs those of all graphs, the last graph's first. Names are those of the model's inputs
    and of the graphs' outputs; `feeds`: for each graph, as of a `Part`."""

    def __init__(self, sessions: Sequence[ort.InferenceSession], feeds: Sequence[Mapping[str, str]]) -> None:
        self._sessions = list(sessions)
        self._takes = [
            {entry.name: feed.get(entry.name, entry.name) for entry in session.get_inputs()}
            for session, feed in zip(sessions, feeds, strict=True)
        ]
        self._gives = [[entry.name for entry in session.get_outputs()] for session in sessions]

    def get_inputs(self) -> list[Value]:
        found: dict[str, Value] = {}
        given: set[str] = set()
        for session, takes, gives in zip(self._sessions, self._takes, self._gives, strict=True):
            for entry in session.get_inputs():
                name = takes[entry.name]
                if name not in given:
                    found.setdefault(name, Value(name, entry.type, entry.shape))
            given.update(gives)
        return list(found.values())

    def get_outputs(self) -> list[Value]:
        return [
            Value(entry.name, entry.type, entry.shape)
            for session in reversed(self._sessions)
            for entry in session.get_outputs()
        ]

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Outputs in the order of `output_names`, or all as `get_outputs` has them."""
        wanted = [entry.name for entry in self.get_outputs()] if output_names is None else list(output_names)
        known = dict(input_feed)
        parts = zip(self._sessions, self._takes, self._needed(wanted), strict=True)
        for session, takes, names in (part for part in parts if part[2]):
            given = {name: known[of] for name, of in takes.items()}
            known |= zip(names, session.run(names, given, run_options), strict=True)
        return [known[name] for name in wanted]

    def _needed(self, wanted: Sequence[str]) -> list[list[str]]:
        """The outputs of each graph that are wanted, or that a needed graph behind it reads."""
        needed, found = set(wanted), []
        for takes, gives in zip(reversed(self._takes), reversed(self._gives), strict=True):
            found.append([name for name in gives if name in needed])
            needed |= set(takes.values()) if found[-1] else set()
        return found[::-1]


def _open(subject: Subject, options: ort.SessionOptions) -> _Session | Chain:
    """The session of a subject, or of all its graphs."""
    if subject.plugin is not None:
        add_plugin(options, subject.plugin)
    first = _Session(subject.model, subject, options)
    if not subject.then:
        return first
    rest = [_Session(part.model, subject, options) for part in subject.then]
    return Chain([first, *rest], [{}, *(part.feeds for part in subject.then)])


def _select(session: _Session | Chain, arrays: Feed) -> Feed:
    """The arrays that the model takes: a compressed model may have lost an input."""
    names = [item.name for item in session.get_inputs()]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise Refusal("error", f"The model takes {names}, but the inputs are {sorted(arrays)}.", f"Add {missing}.")
    return fitting(kept_dtypes(session), {name: arrays[name] for name in names})


_KEPT = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int8)": "int8"}
"""What keys and values of a language model are stored as."""


def kept_dtypes(session: ort.InferenceSession | Chain) -> dict[str, str]:
    """The dtypes of the inputs that may be keys and values."""
    return {item.name: _KEPT[item.type] for item in session.get_inputs() if item.type in _KEPT}


def fitting(dtypes: Mapping[str, str], feed: Mapping[str, Any]) -> Feed:
    """The feed with arrays that have no values, as keys and values before the first token, in the dtypes that the graph
    takes: samples have them as the float model does."""
    empty = [name for name in dtypes if name in feed and getattr(feed[name], "size", 1) == 0]
    return {**feed, **{name: feed[name].astype(dtypes[name]) for name in empty}}


class Text:
    """A text that a language model reads. Its past and its present are one buffer for each layer's keys and values, as
    long as the context, so that no run copies them."""

    def __init__(self, session: ort.InferenceSession, language: Language) -> None:
        self._session = session
        shape = (1, language.heads, language.longest, language.size)
        pairs = zip(language.past, language.present, strict=True)
        self._buffers = [(*pair, ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, language.dtype))) for pair in pairs]

    def read(self, ids: Sequence[int], before: int) -> NDArray[Any]:
        """Logits [tokens, vocabulary] of tokens behind `before` others, whose keys and values stand in the buffers."""
        binding = self._session.io_binding()
        binding.bind_cpu_input("input_ids", np.array([ids], np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((1, before + len(ids)), np.int64))
        for past, present, buffer in self._buffers:
            binding.bind_ortvalue_input(past, buffer)
            binding.bind_ortvalue_output(present, buffer)
        binding.bind_output("logits", "cpu")
        self._session.run_with_iobinding(binding)
        logits: NDArray[Any] = binding.get_outputs()[-1].numpy()[0]
        return logits


def _read(text: Text, ids: Sequence[int], before: int) -> None:
    try:
        text.read(ids, before)
    except ORT_ERRORS as error:
        raise Refusal("refused", cannot("run the model on a text", error)) from error


# Answers


def answers(request: Answers) -> dict[str, Any]:
    """`done`: how many feeds were answered, each with the outputs `names`; `inputs`, `outputs`: what the graph declares
    (see `Value`)."""
    (subject,) = request.subjects
    session, _ = _timed_load(subject)
    declared = [[asdict(Value(*_described(e))) for e in side] for side in (session.get_inputs(), session.get_outputs())]
    names = [*dict.fromkeys([*(request.names or (e["name"] for e in declared[1])), *request.carry.values()])]
    done, fresh, carried = 0, set(request.fresh), dict[str, Any]()
    with Path(subject.inputs).open("rb") as feeds, Path(request.outputs).open("wb") as out:
        while done < request.count and out.tell() < request.most_bytes:
            feed = {name: np.load(feeds, allow_pickle=False) for name in request.inputs}
            feed |= {} if done in fresh else carried
            found = dict(zip(names, session.run(names, _select(session, feed)), strict=True))
            carried = {name: found[output] for name, output in request.carry.items() if name in feed}
            for name, array in found.items():
                _write(out, name, array)
            done += 1
    return {"done": done, "names": names, "inputs": declared[0], "outputs": declared[1]}


def _described(entry: Any) -> tuple[str, str, list[Any]]:
    return entry.name, entry.type, list(entry.shape)


def _write(file: IO[bytes], name: str, array: Any) -> None:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise Refusal("error", f"The output {name!r} is no array of numbers.", "Judge the model by another output.")
    np.save(file, array, allow_pickle=False)


# Time

_Run: TypeAlias = "tuple[_Session | Chain, Feed]"


def timing(request: Timing) -> dict[str, Any]:
    """`blocks`: the raw times of every load (see `_block`)."""
    begin = time.monotonic()
    generator = random.Random(request.seed)  # noqa: S311  # the order of inferences, no secret
    subjects = [interleavable(subject, len(request.subjects)) for subject in request.subjects]
    blocks: list[dict[str, Any]] = []
    while len(blocks) < request.blocks:
        if len(blocks) >= request.fewest_blocks and time.monotonic() - begin >= request.max_seconds:
            break
        blocks.append(_block(request, subjects, generator))
        gc.collect()
    return {"blocks": blocks}


def interleavable(subject: Subject, sessions: int) -> Subject:
    """Idle threads of one session spin for a while, on the cores that the other one then needs."""
    if subject.threads == 1 or sessions == 1:
        return subject
    return replace(subject, config={_SPINNING_STOP: "1", **subject.config})


def _block(request: Timing, subjects: Sequence[Subject], generator: random.Random) -> dict[str, Any]:
    """One load: `load_ms` by model; `wall_ms`, `cpu_ms` by round and model; `switches` (involuntary) by round; the
    `cpu_time` (see there) before and after the rounds."""
    loaded = [_timed_load(subject) for subject in subjects]
    pairs = zip(loaded, subjects, strict=True)
    runs = [(session, _select(session, read_feed(subject.inputs))) for (session, _), subject in pairs]
    _warm_up(request, runs)
    threads = max(subject.threads for subject in subjects)
    clock = time.thread_time_ns if threads == 1 else time.process_time_ns
    rows: list[_Round] = []
    gc.disable()
    before, begin = cpu_time(), time.monotonic()
    while not full(request, len(rows), time.monotonic() - begin):
        order = generator.sample(range(len(runs)), len(runs))
        rows.append(_round(runs, order, clock, threads))
    after = cpu_time()
    gc.enable()
    return {
        "load_ms": [ms for _, ms in loaded],
        "wall_ms": [row.wall for row in rows],
        "cpu_ms": [row.cpu for row in rows],
        "switches": [row.switches for row in rows],
        "cpu_time": [before, after],
    }


@dataclass(frozen=True)
class _Round:
    wall: list[float]
    cpu: list[float]
    switches: int


def _round(runs: Sequence[_Run], order: Sequence[int], clock: Callable[[], int], threads: int) -> _Round:
    """Each model once, in `order`; times are by model. With one thread, CPU time is its own; with several, that of the
    whole process, since the pool's threads do the work."""
    wall, cpu = [0.0] * len(runs), [0.0] * len(runs)
    switched = switches(threads)
    for place in order:
        wall[place], cpu[place] = _timed_run(*runs[place], clock)
    return _Round(wall, cpu, switches(threads) - switched)


def _warm_up(request: Timing, runs: Sequence[_Run]) -> None:
    """At least two rounds, but for models so slow that the second would take long."""
    begin = time.monotonic()
    for done in range(request.warmup):
        if done >= 1 and time.monotonic() - begin >= (request.warmup_seconds if done >= 2 else request.slow_seconds):
            return
        for session, feed in runs:
            session.run(None, feed)


def full(request: Timing, rounds: int, seconds: float) -> bool:
    """Whether a block has enough."""
    if seconds >= request.slow_seconds:
        return rounds >= request.fewest_rounds
    if seconds >= request.block_seconds:
        return rounds >= request.min_rounds
    return rounds >= max(request.enough_rounds, request.min_rounds) and seconds >= request.block_seconds / 2


def _timed_load(subject: Subject) -> tuple[_Session | Chain, float]:
    begin = time.perf_counter_ns()
    session = _open(subject, session_options(subject.threads, subject.config))
    return session, (time.perf_counter_ns() - begin) / 1e6


def _timed_run(session: _Session | Chain, feed: Feed, clock: Callable[[], int]) -> tuple[float, float]:
    """ms of wall and of CPU time; the reading of the CPU clock is outside the wall time."""
    used, begin = clock(), time.perf_counter_ns()
    session.run(None, feed)
    end = time.perf_counter_ns()
    return (end - begin) / 1e6, (clock() - used) / 1e6


def cpu_time() -> dict[str, Any] | None:
    """The first line of /proc/stat (`stat`, in `ticks_per_second`) and this process's own seconds (`own`); None where
    the system does not tell, or not to everyone (Android)."""
    try:
        text = _STAT.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    first = text.partition("\n")[0]
    return {"stat": first, "ticks_per_second": os.sysconf("SC_CLK_TCK"), "own": time.process_time()}


def switches(threads: int) -> int:
    """Involuntary context switches so far: of this thread, or of all where it uses `threads`. 0 on Windows, which does
    not tell them."""
    if _resource is None:
        return 0
    own = _resource.RUSAGE_SELF
    return int(_resource.getrusage(getattr(_resource, "RUSAGE_THREAD", own) if threads == 1 else own).ru_nivcsw)


def decoding(request: Decoding) -> dict[str, Any]:
    """`prompts`, `places`: lists of ms for each of the request's, in their order. Keys and values of tokens that were
    not read are zeros, which take as long."""
    (subject,) = request.subjects
    ids = [int(token) for token in read_feed(subject.inputs)["input_ids"][0]]
    session, _ = _timed_load(subject)
    text = Text(session, request.language)
    return {
        "prompts": [_read_times(request, text, np.resize(ids, tokens).tolist(), 0) for tokens in request.prompts],
        "places": [_read_times(request, text, ids[:1], place) for place in request.places],
    }


def _read_times(request: Decoding, text: Text, ids: Sequence[int], before: int) -> list[float]:
    _read(text, ids, before)  # warm-up
    times: list[float] = []
    end = time.monotonic() + request.seconds
    while len(times) < request.enough and (len(times) < request.fewest or time.monotonic() < end):
        begin = time.perf_counter_ns()
        _read(text, ids, before)
        times.append((time.perf_counter_ns() - begin) / 1e6)
    return times


# Memory, in MB of 10^6 bytes


def memory(request: Memory) -> dict[str, Any]:
    """`load_ms`, and the peaks while loading and while running in MB over the process before the session.

    `load_parts_mb`, `run_parts_mb`: what was anonymous and what file-backed of the most that was seen, looking every
    millisecond; null where the system does not tell. `how` says what kind of peak it is. Where this system tells none
    they are null, and `reason` says why.
    """
    (subject,) = request.subjects
    feed = read_feed(subject.inputs)
    gc.collect()
    with _Watch() as watch:
        if request.group:
            (Path(request.group) / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        peaks = _Peaks()
        session, load_ms = _timed_load(subject)
        load_peak, load_parts = peaks.mb(), watch.parts_mb()
        _run_for_memory(request, session, feed)
        run_peak, run_parts = peaks.mb(), watch.parts_mb()
    return {
        "load_ms": load_ms,
        "load_peak_mb": load_peak,
        "run_peak_mb": run_peak,
        "load_parts_mb": load_parts,
        "run_parts_mb": run_parts,
        "how": peaks.how,
        "reason": peaks.reason,
    }


def _run_for_memory(request: Memory, session: _Session | Chain, feed: Feed) -> None:
    if request.language is None:
        feed = _select(session, feed)
        for _ in range(request.runs):
            session.run(None, feed)
    else:
        ids = feed["input_ids"][0].tolist()
        text = Text(session, request.language)
        _read(text, ids, 0)
        _read(text, ids[-1:], request.language.longest - 1)


class _Peaks:
    """The most that was resident in MB over what is when it is made, since then or since it was last asked.

    Linux keeps that peak and lets it be reset. Where it does not, as on macOS and Windows, the peak of the process's
    whole life stands for it (psutil), which is never less than the true one; while nothing can be told, `reason` says
    why.
    """

    def __init__(self) -> None:
        self.reason = reset_peak()
        self.how = "" if self.reason else "peak resident memory of each phase (Linux: VmHWM)"
        if self.reason and find_spec("psutil"):
            self._process = import_module("psutil").Process()
            self.how, self.reason = "peak resident memory of the process's whole life (psutil), which is no less", ""
        self._before = None if self.reason else self._resident()

    def mb(self) -> float | None:
        if self._before is None:
            return None
        peak = self._peak()
        reset_peak()
        return peak - self._before

    def _resident(self) -> float:
        return float(self._process.memory_info().rss / 1e6) if hasattr(self, "_process") else resident_mb()

    def _peak(self) -> float:
        if not hasattr(self, "_process"):
            return peak_mb()
        told = self._process.memory_info()
        if hasattr(told, "peak_wset"):  # Windows
            return float(told.peak_wset / 1e6)
        unit = 1 if sys.platform == "darwin" else 1024
        return float(_resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


_WATCH = """
import select, sys
most = 0, 0
while True:
    try:
        with open(sys.argv[1]) as file:
            told = dict(line.split(":") for line in file)
    except OSError:
        break
    kb = [int(told[name].split()[0]) for name in ("RssAnon", "RssFile", "RssShmem")]
    most = max(most, (kb[0], kb[1] + kb[2]), key=sum)
    if select.select([sys.stdin], [], [], 0.001)[0]:
        if not sys.stdin.readline():
            break
        print(*most, flush=True)
        most = 0, 0
"""


class _Watch:
    """Another process that looks at this one's memory, so that the parts of its peak are seen. While the session is
    made nothing of Python runs here."""

    def __enter__(self) -> _Watch:
        self._process: subprocess.Popen[str] | None = None
        if _STATUS.is_file():
            command = [sys.executable, "-S", "-E", "-c", _WATCH, str(_STATUS).replace("self", str(os.getpid()))]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self._before = self._asked()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate()

    def parts_mb(self) -> dict[str, float] | None:
        """`anonymous` and `file`, over what they were at first, at the largest sum since it was last asked."""
        seen = self._asked()
        if seen is None or self._before is None:
            return None
        return {name: (seen[at] - self._before[at]) * 1024 / 1e6 for at, name in enumerate(("anonymous", "file"))}

    def _asked(self) -> tuple[int, int] | None:
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            return None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            anonymous, file = map(int, self._process.stdout.readline().split())
        except (OSError, ValueError):  # it could not start, or the system tells no parts
            return None
        return anonymous, file


def fit(request: Fit) -> dict[str, Any]:
    """`fits`: whether the model loads and runs under the limit; `how` it was limited. Where nothing can limit it here
    `fits` is null, and `reason` says why."""
    fields = {"subjects": [asdict(subject) for subject in request.subjects], "runs": request.runs}
    fields["language"] = None if request.language is None else asdict(request.language)
    try:
        group, how = _control_group(int(request.limit_mb * 1e6))
    except OSError as error:
        reason = f"no control group can be made here: {error.filename or ''} {error.strerror or error}"
        return {"fits": None, "how": "", "reason": reason}
    try:
        asked = json.dumps({"mode": "memory", "group": str(group), **fields})
        done = subprocess.run([sys.executable, __file__], input=asked, capture_output=True, text=True, check=False)
    finally:
        group.rmdir()
    if done.returncode == -signal.SIGKILL:
        return {"fits": False, "how": how, "reason": ""}
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise Refusal("error", f"Loading and running under a limit failed: {said}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for kind in ("error", "refused"):
        if kind in result and not _out_of_memory(result[kind]):
            raise Refusal(kind, result[kind], result["remedy"])
    return {"fits": not ("error" in result or "refused" in result), "how": how, "reason": ""}


def _out_of_memory(message: str) -> bool:
    return "bad_alloc" in message or "allocate memory" in message


_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def _control_group(limit: int) -> tuple[Path, str]:
    """A new control group (version 2 or 1) below this process's own whose memory is limited to so many bytes, without
    swap, and which version it is. OSError where none can be made."""
    own = dict(line.split(":", 2)[1:] for line in _OWN_GROUPS.read_text(encoding="ascii").splitlines())
    version, root, path = (1, _GROUPS / "memory", own["memory"]) if "memory" in own else (2, _GROUPS, own.get("", "/"))
    parent = root / path.lstrip("/")
    group = (
        parent if parent.is_dir() else root
    ) / f"edge-{os.getpid()}-{time.time_ns()}"  # a container sees its own as the root
    group.mkdir()
    limits = {"memory.max": limit, "memory.swap.max": 0}
    if version == 1:
        limits = {"memory.limit_in_bytes": limit, "memory.memsw.limit_in_bytes": limit}
    try:
        for name, value in limits.items():
            if (group / name).exists() or not name.startswith(("memory.swap", "memory.memsw")):
                (group / name).write_text(str(value), encoding="ascii")
    except OSError:
        group.rmdir()
        raise
    return group, f"cgroup v{version}"


def reset_peak() -> str:
    """Start a new peak at what is resident now (`5` written to clear_refs, man 5 proc_pid_clear_refs).

    Returns why it cannot be done here, or an empty string.
    """
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError as error:
        return f"the peak of resident memory cannot be reset: {_CLEAR}: {error.strerror}"
    return ""


def resident_mb() -> float:
    return _status("VmRSS")


def peak_mb() -> float:
    """The most that was resident since `reset_peak`."""
    return _status("VmHWM")


def _status(name: str) -> float:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024 / 1e6
    raise OSError(f"{_STATUS} has no {name}")


# Nodes, and the machine


def profile(request: Profile) -> dict[str, Any]:
    """`events` of ONNX Runtime's profiler (Chrome trace format) that are runs or kernels, in their order."""
    (subject,) = request.subjects
    options = session_options(subject.threads, subject.config)
    options.optimized_model_filepath = request.optimized_model
    if not request.optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        if subject.plugin is not None:
            add_plugin(options, subject.plugin)
        session = _Session(subject.model, subject, options)
        feed = _select(session, read_feed(subject.inputs))
        for _ in range(request.warmup + request.runs):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return {"events": [event for event in events if event["name"].endswith(("model_run", "_kernel_time"))]}


def marked(request: Marked) -> dict[str, Any]:
    """`marks`: how many there were."""
    (subject,) = request.subjects
    session, _ = _timed_load(subject)
    feed = _select(session, read_feed(subject.inputs))
    session.run(None, feed)
    gc.disable()
    _mark()
    for _ in range(request.runs):
        session.run(None, feed)
        _mark()
    return {"marks": request.runs + 1}


def _mark() -> None:
    """A system call that has no effect: there is no such scheduling policy."""
    with contextlib.suppress(OSError):
        os.sched_get_priority_max(_MARK)


def facts(_: Facts) -> dict[str, Any]:
    """The text of /proc/cpuinfo (`cpuinfo`, or the `reason` why it is empty) and what Python tells of the machine."""
    cpuinfo, reason = "", ""
    try:
        cpuinfo = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        reason = f"the CPU's instruction sets are not told: {_CPUINFO}: {error.strerror}"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "cpuinfo": cpuinfo,
        "reason": reason,
        "processor": platform.processor() or platform.machine(),
        "cores": available_cores(),
        "memory_mb": pages // 10**6,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "onnxruntime": ort.__version__,
    }


def series(request: Series) -> dict[str, Any]:
    """`results`, in the order of the requests, with what tells later what was measured, where, and when. `stepped`: by
    how many seconds the clock of the date stepped meanwhile; times are of another one."""
    clocks = time.time(), time.monotonic()
    results = []
    for number, asked in enumerate(request.requests, start=1):
        print(f"{number} of {len(request.requests)}: {asked['mode']}", file=sys.stderr)  # noqa: T201  # for a person
        results.append({"mode": asked["mode"], "result": in_process(asked)})
    return {
        "format": "edge-device-report-1",
        "bundle": request.bundle,
        "files": {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in request.files},
        "inputs": {name: list(array.shape) for name, array in read_feed(request.subjects[0].inputs).items()},
        "threads": request.subjects[0].threads,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clocks[0])),
        "stepped": (time.time() - clocks[0]) - (time.monotonic() - clocks[1]),
        "machine": facts(Facts()),
        "results": results,
    }


def in_process(asked: Mapping[str, Any], program: str = __file__) -> dict[str, Any]:
    """The result of a request in a process of its own; Refusal where it dies or refuses."""
    done = subprocess.run(
        [sys.executable, *(["-P"] if getattr(sys.flags, "safe_path", False) else []), program],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise Refusal("error", f"Measuring {asked['mode']} failed: {said}", "Is there enough memory?")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for kind in ("error", "refused"):
        if kind in result:
            raise Refusal(kind, result[kind], result["remedy"])
    return result


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_MODES: Modes = {
    "timing": (Timing, timing),
    "memory": (Memory, memory),
    "fit": (Fit, fit),
    "decoding": (Decoding, decoding),
    "profile": (Profile, profile),
    "answers": (Answers, answers),
    "marked": (Marked, marked),
    "series": (Series, series),
    "facts": (Facts, facts),
}

if __name__ == "__main__":
    sys.exit(main())
