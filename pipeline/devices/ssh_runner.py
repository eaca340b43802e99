"""The runner on a board that ssh reaches: any with Python, numpy and onnxruntime."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from functools import partial

from pipeline.config.target import Target
from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.core.report_types import HostInfo
from pipeline.core.types import Json
from pipeline.devices.link import NEEDS_PYTHON, Link, board_python, python_command
from pipeline.devices.remote_runner import RemoteRunner
from pipeline.devices.worker import Request

CLIENT = "EDGE_SSH"
"""The variable with another ssh command, as `ssh -F my_config`."""
_FORM = "Write ssh:user@host, ssh:user@host:port, or ssh:NAME of your ssh configuration; [address]:port for IPv6."
_PLACE = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})@)?"
    r"(?:\[(?P<address>[0-9A-Fa-f:.%a-z]{2,64})\]|(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
    "ForwardAgent": "no",
    "ForwardX11": "no",
}


@dataclass(frozen=True)
class SshPlace:
    """A board as ssh is told of it."""

    host: str
    user: str = ""
    port: int | None = None

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}" if self.port is None else f"{user}{host}:{self.port}"

    @property
    def destination(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host


def parse_place(text: str) -> SshPlace:
    """`pi@board`, `pi@board:2222`, `board`, `pi@[fe80::1]:22`. UsageError for anything else."""
    found = _PLACE.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 0 < port < 65536):
        raise UsageError(f"{text!r} is no place that ssh reaches." if text else "ssh: names no board.", _FORM)
    return SshPlace(found["address"] or found["host"], found["user"] or "", port)


class SshRunner:
    """What `ssh` names; with a place it is a runner."""

    evidence = RemoteRunner.evidence

    @staticmethod
    def at(place: str, _target: Target) -> RemoteRunner:
        """The board at `place` (see `parse_place`)."""
        return RemoteRunner(partial(_connect, parse_place(place)))

    def run(self, request: Request, timeout_s: float) -> dict[str, Json]:
        """UsageError: there is no board by default."""
        return RemoteRunner(partial(_connect, parse_place(""))).run(request, timeout_s)

    def info(self) -> HostInfo:
        """As `run`."""
        return RemoteRunner(partial(_connect, parse_place(""))).info()


SSH = SshRunner()


def _connect(place: SshPlace) -> Link:
    return Link(ssh_command(place), partial(broken, place), str(place))


def ssh_command(place: SshPlace) -> list[str]:
    """The client's command line. Nothing in it is read by a shell here; the board's shell reads the last argument."""
    client = shlex.split(os.environ.get(CLIENT, "ssh"))
    if not client or shutil.which(client[0]) is None:
        raise UsageError(f"There is no {client[0] if client else 'command in ' + CLIENT!r} here.", "Install OpenSSH.")
    options = [part for name, value in _OPTIONS.items() for part in ("-o", f"{name}={value}")]
    port = [] if place.port is None else ["-p", str(place.port)]
    return [*client, "-T", *options, *port, "--", place.destination, python_command()]


def broken(place: SshPlace, code: int, said: str) -> EdgeError:
    """What ssh's exit code (255 for its own failures, else the board's) and its words mean."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1].rstrip(".") if lines else f"exit {code}"
    by_hand = f"ssh {'' if place.port is None else f'-p {place.port} '}{place.destination}"
    for phrase, message, remedy in (
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            f"The host key of {place} is not the one that is known: it was installed anew, or another machine answers.",
            f"Find out which. If it was installed anew: ssh-keygen -R {_known_name(place)}, then connect once by hand "
            f"({by_hand}).",
        ),
        (
            "Host key verification failed",
            f"The host key of {place} is not known here.",
            f"Connect once by hand ({by_hand}) and compare its fingerprint.",
        ),
        (
            "Permission denied",
            f"{place} refuses the key: {last}.",
            f"Put your public key there (ssh-copy-id), so that `{by_hand}` asks for no password.",
        ),
        ("old Python", f"{place} has a Python that is too old: {last.rpartition(' ')[2]}.", NEEDS_PYTHON),
    ):
        if phrase in said:
            return UsageError(message, remedy)
    if code == 255:
        return StageError(
            f"The link to {place} broke, or there was none: {last}.",
            "What was finished before is kept: run the command again once the board can be reached.",
        )
    if code in (126, 127):
        return UsageError(f"{place} cannot start {board_python()[0]!r}: {last}.", NEEDS_PYTHON)
    return StageError(
        f"What measures on {place} ended (exit {code}): {last}.",
        "What was finished before is kept: run the command again.",
    )


def _known_name(place: SshPlace) -> str:
    return place.host if place.port in (None, 22) else f"'[{place.host}]:{place.port}'"
