"""Which opset a graph is written in: the flag's, the newest that the app's ONNX Runtime knows, or the usual one."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.job import OPSETS, Job
from pipeline.core.errors import UsageError
from pipeline.runtime.releases import first_release, newest_opset, parse_release, spell

_FLAG = "--min-onnxruntime"


@dataclass(frozen=True)
class Opset:
    """The opset to write, and what it costs if it is older than the usual one."""

    version: int
    notes: tuple[str, ...] = ()


def choose_opset(job: Job, given_onnx: bool) -> Opset:
    """The opset of an export. `given_onnx`: of an ONNX file, which keeps its own from the oldest one on.

    Raises:
        UsageError: If `--min-onnxruntime` is no release, loads no opset that is written here, or contradicts `--opset`.
    """
    usual = min(OPSETS) if given_onnx else max(OPSETS)
    if job.min_onnxruntime is None:
        return Opset(job.opset or usual)
    newest = _newest(job.min_onnxruntime)
    if job.opset is not None and job.opset > newest:
        raise UsageError(
            f"ONNX Runtime {job.min_onnxruntime} does not load opset {job.opset}.",
            f"Ask for --opset {newest}, or for {_FLAG} {spell(first_release(job.opset))}.",
        )
    version = job.opset or min(newest, usual)
    lowered = job.opset is None and version < usual
    return Opset(version, (_cost(version, job.min_onnxruntime),) if lowered else ())


def _newest(asked: str) -> int:
    """The newest opset, of those that are written here, that a release loads."""
    oldest = spell(first_release(min(OPSETS)))
    try:
        release = parse_release(asked)
    except ValueError:
        raise UsageError(f"{_FLAG} {asked!r} is no release of ONNX Runtime.", f"For example: {_FLAG} 1.20.") from None
    if newest_opset(release) < min(OPSETS):
        raise UsageError(
            f"ONNX Runtime {asked} does not load opset {min(OPSETS)}, the oldest that bundles are written in.",
            f"{oldest} is the oldest release that does: {_FLAG} {oldest}.",
        )
    return min(newest_opset(release), max(OPSETS))


def _cost(version: int, asked: str) -> str:
    return (
        f"The graph is written in opset {version} for ONNX Runtime {asked}, instead of {max(OPSETS)}: what "
        f"only opset {max(OPSETS)} has an operator for is written out (attention, norms without a mean)."
    )
