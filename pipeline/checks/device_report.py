"""Figures that were measured elsewhere, from a file that somebody brings: what it says, and what it proves.

Three kinds of file are read: the report of the worker (`device_kit`), the JSON of a profile job of Qualcomm's AI Hub,
and what onnxruntime_perf_test prints. Only the first says which files it measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.bundle.example_feed import example_feed
from pipeline.bundle.manifest import read_manifest
from pipeline.bundle.records import bundle_graphs, read_metadata
from pipeline.checks.timing import Turns, latency_result, read_blocks
from pipeline.config.target import Target
from pipeline.core.digest import SHA256
from pipeline.core.errors import UsageError
from pipeline.core.types import Doubt, Evidence, Figure, Json, StrictModel
from pipeline.core.untrusted import parse_json, read_text, shown
from pipeline.devices.decoding import cache_of, decoding_request, decoding_result
from pipeline.devices.host_info import machine_info
from pipeline.devices.memory import memory_result
from pipeline.devices.results import MOST_RUNS, Line, Machine, Read, Remembered, Timed, mistakes
from pipeline.devices.runner import subject_of

LARGEST = 64_000_000
"""Bytes of a report that are read."""
_FORM = (
    "Give the report.json of `edge devices kit`, the JSON of an AI Hub profile job (download_profile), or what "
    "onnxruntime_perf_test printed."
)
_ANEW = "Make the kit for this target (`edge devices kit BUNDLE --target`), and measure again."
UNATTESTED = "the report does not say which bundle it measured (unattested)"
_ATTEST = "Measure with `edge devices kit BUNDLE`, whose report does."
_Sha256 = Annotated[str, Field(pattern=f"^{SHA256.pattern}$")]


class _Timed(StrictModel):
    mode: Literal["timing"]
    result: Timed


class _Remembered(StrictModel):
    mode: Literal["memory"]
    result: Remembered


class _Decoded(StrictModel):
    mode: Literal["decoding"]
    result: Read


class WorkerReport(StrictModel):
    """What the worker writes for a `Series`."""

    format: Literal["edge-device-report-1"]
    bundle: _Sha256
    files: Annotated[dict[Line, _Sha256], Field(min_length=1, max_length=1000)]
    inputs: Annotated[dict[Line, tuple[int, ...]], Field(max_length=1000)]
    threads: int
    date: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z$")]
    stepped: float
    machine: Machine
    results: Annotated[
        list[Annotated[_Timed | _Remembered | _Decoded, Field(discriminator="mode")]],
        Field(min_length=1, max_length=1000),
    ]


class _Summary(BaseModel):
    """`execution_summary` of an AI Hub profile: microseconds."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    estimated_inference_time: Annotated[float, Field(gt=0, le=1e12)]
    all_inference_times: Annotated[list[Annotated[float, Field(gt=0, le=1e12)]], Field(max_length=MOST_RUNS)] = []
    warm_load_time: Annotated[float, Field(gt=0, le=1e12)] | None = None


class _AiHub(BaseModel):
    model_config = ConfigDict(frozen=True)

    execution_summary: _Summary


@dataclass(frozen=True)
class Reported:
    """What a report says. `figures`: by the name of their budget; `notes`: where, when and by whom they were got."""

    figures: Mapping[str, Figure] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_device_report(path: Path, bundle: Path, target: Target) -> Reported:
    """The figures of a report as evidence of a device. UsageError for a file of no known kind, for a report of another
    bundle, and for one that was measured at another shape or number of threads than the target's."""
    text = read_text(path, LARGEST, "utf-8-sig")
    if text.lstrip().startswith("{"):
        data = parse_json(text, path.name)
        if "format" in data:
            return _of_worker(_record(WorkerReport, data, path), path, bundle, target)
        if "execution_summary" in data:
            return _of_ai_hub(_record(_AiHub, data, path).execution_summary, path)
    elif _AVERAGE.search(text):
        return _of_perf_test(text, path)
    raise UsageError(f"{path.name} is no report of a device that is known here.", _FORM)


def _record(kind: type[Any], data: Json, path: Path) -> Any:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"{path.name} is no report that can be used: {mistakes(error)}.", _FORM) from error


def _of_worker(report: WorkerReport, path: Path, bundle: Path, target: Target) -> Reported:
    _require_own(report, path, bundle)
    shapes = {name: array.shape for name, array in example_feed(bundle, target.shape).items()}
    if dict(report.inputs) != shapes or report.threads != target.runtime.threads:
        raise UsageError(
            f"{path.name} was measured on {_sizes(report.inputs)} with {report.threads} threads; the target "
            f"{target.name} measures on {_sizes(shapes)} with {target.runtime.threads}.",
            _ANEW,
        )
    machine, day = machine_info(report.machine.model_dump()), report.date.partition("T")[0]
    source = f"{path.name} of {day}, measured on {shown(machine.cpu)}"
    notes = [
        f"Latency and memory come from {source} ({shown(machine.system)}, ONNX Runtime "
        f"{shown(machine.onnxruntime)}); the files that it measured are the bundle's."
    ]
    if abs(report.stepped) >= 1.0:
        notes.append(
            f"The clock of that device stepped by {report.stepped:.0f} s meanwhile: its date may be wrong, times are "
            "of its monotonic clock, which does not step."
        )
    figures = _worker_figures(report) | _decoding_figures(report, path, bundle, target)
    return Reported(_noted(figures, source), tuple(notes))


def _require_own(report: WorkerReport, path: Path, bundle: Path) -> None:
    """UsageError unless the report is of this bundle: its digest, and the bytes of every graph."""
    manifest = read_manifest(bundle)
    graphs = bundle_graphs(bundle)
    names = {file.relative_to(bundle).as_posix() for spec in graphs for file in spec.files(bundle)}
    own = {name: manifest["files"][name]["sha256"] for name in names}
    if report.bundle != manifest["digest"] or dict(report.files) != own:
        raise UsageError(
            f"{path.name} is of another bundle (its digest begins with {report.bundle[:12]}, this one's with "
            f"{manifest['digest'][:12]})"
            + ("." if report.bundle != manifest["digest"] else ", or its files were changed on the way."),
            "Name the bundle that was measured, or measure this one (`edge devices kit`).",
        )


def _worker_figures(report: WorkerReport) -> dict[str, Figure]:
    timings = [entry.result for entry in report.results if isinstance(entry, _Timed)]
    memories = [entry.result for entry in report.results if isinstance(entry, _Remembered)]
    figures: dict[str, Figure] = {}
    if timings:
        blocks = [
            block
            for process, timing in enumerate(timings, start=1)
            for block in read_blocks(timing.model_dump(), process, report.threads)
        ]
        latency = latency_result(Turns(tuple(blocks), Evidence.DEVICE), report.threads, dict(report.inputs))
        figures |= {"latency_p50_ms": latency.p50, "latency_p95_ms": latency.p95}
    if memories:
        memory = memory_result([entry.model_dump() for entry in memories], Evidence.DEVICE)
        peaks = [peak for peak in (memory.load_peak_mb, memory.run_peak_mb) if peak is not None]
        figures |= {"load_ms": memory.load_ms} if memory.load_ms else {}
        figures |= {"peak_memory_mb": max(peaks, key=lambda figure: figure.value)} if peaks else {}
    return figures


def _decoding_figures(report: WorkerReport, path: Path, bundle: Path, target: Target) -> dict[str, Figure]:
    """Of a language model, what the kit of this target asks for. UsageError if it was asked something else."""
    language = read_metadata(bundle).language
    results = [entry.result.model_dump() for entry in report.results if isinstance(entry, _Decoded)]
    if language is None or not results:
        return {}
    subject = subject_of(bundle_graphs(bundle), Path(), target.runtime)
    request = decoding_request(subject, cache_of(language), target.shape.sequence_length)
    asked = len(request.prompts), len(request.places)
    if any((len(result["prompts"]), len(result["places"])) != asked for result in results):
        raise UsageError(f"{path.name} has other prompts than the target {target.name} asks for.", _ANEW)
    found = decoding_result(request, results, Evidence.DEVICE)
    first = [read.p95 for read in found.prompts if read.tokens == target.shape.sequence_length]
    slowest = min(found.rates.values(), key=lambda rate: rate.value)
    return {"min_tokens_per_s": slowest, **({"ttft_p95_ms": first[0]} if first else {})}


def _of_ai_hub(summary: _Summary, path: Path) -> Reported:
    """The job's own times, else the one that it calls typical (its documentation: the minimum over its runs)."""
    times = summary.all_inference_times or [summary.estimated_inference_time]
    made_of = f"{len(times)} runs" if summary.all_inference_times else "the job's estimate alone"
    figures = _quantiles(np.array(times) / 1e3, made_of)
    if summary.warm_load_time is not None:
        figures["load_ms"] = _unattested(summary.warm_load_time / 1e3, "warm load")
    return _told(figures, path, "a profile job of AI Hub")


_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,12})?(?:e[-+]?[0-9]{1,2})?)"
_AVERAGE = re.compile(rf"^Average inference time cost(?: total)?: *{_NUMBER} ms", re.M)
_PERCENTILE = re.compile(rf"^P(50|95) Latency(?::| is) *{_NUMBER} *s(?:ec)?\b", re.M)
_CREATION = re.compile(rf"^Session creation time cost: *{_NUMBER} s", re.M)
_RUNS = re.compile(r"^Total inference requests: *([0-9]{1,12})", re.M)


def _of_perf_test(text: str, path: Path) -> Reported:
    """Its percentiles, which it prints with -s or without a result file; else its average as the median."""
    runs = _RUNS.search(text)
    made_of = f"{runs[1]} runs" if runs else "an unknown number of runs"
    figures = {
        f"latency_p{rank}_ms": _unattested(float(seconds) * 1e3, made_of) for rank, seconds in _PERCENTILE.findall(text)
    }
    average = _AVERAGE.search(text)
    if "latency_p50_ms" not in figures and average is not None:
        figures["latency_p50_ms"] = _unattested(float(average[1]), f"average of {made_of}, not their median")
    if (creation := _CREATION.search(text)) is not None:
        figures["load_ms"] = _unattested(float(creation[1]) * 1e3, "session creation")
    return _told({name: figure for name, figure in figures.items() if figure.value > 0}, path, "onnxruntime_perf_test")


def _quantiles(ms: np.ndarray[Any, Any], made_of: str) -> dict[str, Figure]:
    return {f"latency_p{round(100 * q)}_ms": _unattested(float(np.quantile(ms, q)), made_of) for q in (0.50, 0.95)}


def _unattested(value: float, note: str) -> Figure:
    doubt = Doubt(why=UNATTESTED, remedy=_ATTEST)
    return Figure(value=value, unit="ms", evidence=Evidence.DEVICE, note=note, doubt=doubt)


def _told(figures: Mapping[str, Figure], path: Path, what: str) -> Reported:
    """`figures` of a file that says no date: the file's own is what is known."""
    day = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    source = f"{path.name}, {what}, a file of {day}"
    note = f"Latency comes from {source}. It is unattested, and decides no budget: it names no bundle. {_ATTEST}"
    return Reported(_noted(figures, source), (note,))


def _noted(figures: Mapping[str, Figure], source: str) -> dict[str, Figure]:
    return {
        name: figure.model_copy(update={"note": f"{figure.note}; {source}".removeprefix("; ")})
        for name, figure in figures.items()
    }


def _sizes(shapes: Mapping[str, Sequence[int]]) -> str:
    return shown(", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items())))
