"""What the runners on other machines share: requests go over a link, figures and files come back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.core.errors import StageError, UsageError, first_line
from pipeline.core.report_types import HostInfo
from pipeline.core.types import Evidence, Json
from pipeline.core.untrusted import shown
from pipeline.devices import worker
from pipeline.devices.host_info import machine_info
from pipeline.devices.host_runner import LEAKING, cause
from pipeline.devices.link import Link, digests
from pipeline.devices.results import require_sense
from pipeline.devices.runner import checked, encode
from pipeline.devices.worker import Answers, Facts, Part, Profile, Request, Subject
from pipeline.source.onnx_file import data_files

PACKAGES = "EDGE_BOARD_PACKAGES"
"""The variable with a folder of Python packages that a board lacks; they are for its Python and its architecture."""
_FACTS_SECONDS, _STEP = 120.0, 1.0


class RemoteRunner:
    """A board at the other end of a link, which `connect` opens: when it is first needed, and anew if it broke."""

    evidence = Evidence.DEVICE

    def __init__(self, connect: Callable[[], Link]) -> None:
        self._connect = connect
        self._link: Link | None = None
        self._digests: dict[tuple[Path, int, int], str] = {}
        self._info: HostInfo | None = None
        self._stepped = 0.0

    def run(self, request: Request, timeout_s: float) -> dict[str, Json]:
        """As `Runner.run`. A link that broke is opened anew by the next call."""
        link, moved = self._open(), _moved(request)
        program = Path(worker.__file__)
        by_path = digests([program, *moved.reads.values()], self._digests)
        link.send({digest: path for path, digest in by_path.items()})
        files = {name: by_path[path] for name, path in moved.reads.items()}
        ran = link.run(by_path[program], encode(moved.request), files, moved.writes, timeout_s, LEAKING)
        self._stepped = max(self._stepped, abs(ran.stepped))
        if ran.code != 0:
            raise StageError(f"Measuring {request.mode} on {link.board} failed: {cause(ran.code, shown(ran.stderr))}.")
        result = require_sense(request, checked(request, _parsed(ran.stdout, link.board)), link.board)
        if lost := [path.name for path in moved.writes.values() if not path.is_file()]:
            raise StageError(f"{link.board} did not send {lost[0]} back.")
        return result

    def info(self) -> HostInfo:
        if self._info is None:
            self._info = machine_info(self.run(Facts(), _FACTS_SECONDS))
        return self._info

    @property
    def remark(self) -> str:
        """What a reader of its figures must know of it."""
        if self._stepped < _STEP:
            return ""
        return (
            f"The board's clock stepped by {self._stepped:.0f} s while it was measured: times are of its monotonic "
            "clock, which does not."
        )

    def close(self) -> None:
        """End the link; the board's copies are removed there."""
        if self._link is not None:
            self._link.close()

    def _open(self) -> Link:
        if self._link is None or not self._link.open:
            self._link = self._connect()
            _require_onnxruntime(self._link)
        return self._link


def _require_onnxruntime(link: Link) -> None:
    """Lend the board the packages that the user has for it; UsageError if it has no onnxruntime then."""
    given = os.environ.get(PACKAGES)
    if given and not Path(given).is_dir():
        raise UsageError(f"{PACKAGES} names {given!r}, which is no folder.", "Name one that has numpy and onnxruntime.")
    if given:
        link.lend(Path(given))
    hello = link.hello
    if hello.onnxruntime:
        return
    link.close()
    python, machine = shown(hello.python), shown(hello.machine)
    raise UsageError(
        f"{link.board} cannot load numpy and onnxruntime with its Python {python} on {machine}: {shown(hello.why)}.",
        "Install both there (pip install numpy onnxruntime), name another Python with EDGE_BOARD_PYTHON, or lend it a "
        f"copy: `pip install --target board-packages --only-binary=:all: --platform manylinux_2_28_{machine} "
        f"--python-version {python.rpartition('.')[0]} numpy onnxruntime`, and {PACKAGES}=board-packages.",
    )


def _parsed(stdout: bytes, board: str) -> dict[str, Any]:
    lines = stdout.splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError as error:
        raise StageError(f"{board} gives no result that can be read: {first_line(error)}.") from error
    if not isinstance(found, dict):
        raise StageError(f"{board} gives no result.")
    return found


@dataclass(frozen=True)
class _Moved:
    """A request with names in the board's folder; the files here that it reads and writes, by those names."""

    request: Request
    reads: dict[str, Path]
    writes: dict[str, Path]


def _moved(request: Request) -> _Moved:
    reads: dict[str, Path] = {}
    writes: dict[str, Path] = {}
    subjects = tuple(_moved_subject(subject, f"{number}", reads) for number, subject in enumerate(request.subjects))
    changes: dict[str, Any] = {"subjects": subjects}
    for kind, name in ((Profile, "optimized_model"), (Answers, "outputs")):
        if isinstance(request, kind) and getattr(request, name):
            place = Path(getattr(request, name))
            writes[f"out/{place.name}"] = place
            changes[name] = f"out/{place.name}"
    return _Moved(replace(request, **changes), reads, writes)


def _moved_subject(subject: Subject, place: str, reads: dict[str, Path]) -> Subject:
    move = partial(_moved_model, reads=reads)
    reads[f"{place}/inputs"] = Path(subject.inputs)
    then = tuple(Part(move(part.model, f"{place}/{at}"), part.feeds) for at, part in enumerate(subject.then, start=1))
    return replace(subject, model=move(subject.model, f"{place}/0"), inputs=f"{place}/inputs", then=then)


def _moved_model(model: str, place: str, reads: dict[str, Path]) -> str:
    """The name of a model over there; its weights keep their places beside it."""
    path = Path(model)
    for file in (path, *data_files(path)):
        reads[f"{place}/{file.relative_to(path.parent).as_posix()}"] = file
    return f"{place}/{path.name}"
