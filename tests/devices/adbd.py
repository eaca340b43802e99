"""A stand-in for the phone: the device's side of adb's protocol over TCP, on this machine, for the real adb client.

It knows what the tests need of https://android.googlesource.com/platform/packages/modules/adb (docs/dev/): the
transport, shell_v2 without a terminal, and `push` of the sync protocol.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_CONNECT, _AUTH, _OPEN, _OKAY, _WRITE, _CLOSE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
)
_VERSION, _MOST = 0x01000001, 256 * 1024
_STDIN, _STDOUT, _STDERR, _EXIT, _NO_MORE = range(5)


class Transport:
    """One connection of adb's server."""

    def __init__(self, phone: Phone, connection: socket.socket) -> None:
        self._phone, self._connection = phone, connection
        self._sending = threading.Lock()
        self._streams: dict[int, Shell | Sync] = {}
        self._ids = itertools.count(1)
        self.peer = ""

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError), self._connection:
            while True:
                self._take(*self._message())
        for stream in list(self._streams.values()):
            stream.close()

    def send(self, command: int, one: int, two: int, data: bytes = b"") -> None:
        head = struct.pack("<6I", command, one, two, len(data), 0, command ^ 0xFFFFFFFF)
        with self._sending:
            self._connection.sendall(head + data)

    def _message(self) -> tuple[int, int, int, bytes]:
        command, one, two, length, _, _ = struct.unpack("<6I", self._exactly(24))
        return command, one, two, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._connection.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _take(self, command: int, one: int, two: int, data: bytes) -> None:
        if command in (_CONNECT, _AUTH):
            if self._phone.unauthorized:
                self.send(_AUTH, 1, 0, os.urandom(20))  # whatever signature or key comes
            else:
                features = "device::ro.product.name=stand_in;ro.product.model=StandIn;features=shell_v2,cmd"
                self.send(_CONNECT, _VERSION, _MOST, features.encode())
        elif command == _OPEN:
            self._open(one, data.rstrip(b"\0").decode())
        elif command == _OKAY and two in self._streams:
            self._streams[two].went.release()
        elif command == _WRITE and two in self._streams:
            self.send(_OKAY, two, one)
            self._streams[two].take(data)
        elif command == _CLOSE and two in self._streams:
            self._streams.pop(two).close()

    def _open(self, theirs: int, service: str) -> None:
        own = next(self._ids)
        if service.startswith("shell,"):
            stream: Shell | Sync = Shell(self, own, theirs, service.partition(":")[2], self._phone.environment)
        elif service == "sync:":
            stream = Sync(self, own, theirs)
        else:
            self.send(_CLOSE, 0, theirs)
            return
        self._streams[own] = stream
        self.send(_OKAY, own, theirs)
        stream.start()


class Stream:
    """Bytes to the other side wait for its OKAY, one write at a time."""

    def __init__(self, transport: Transport, own: int, theirs: int) -> None:
        self.transport, self.own, self.theirs = transport, own, theirs
        self.went = threading.Semaphore(1)
        self._writing = threading.Lock()

    def start(self) -> None: ...

    def write(self, data: bytes) -> None:
        with self._writing:
            for begin in range(0, len(data), _MOST - 64):
                self.went.acquire()
                with contextlib.suppress(OSError):
                    self.transport.send(_WRITE, self.own, self.theirs, data[begin : begin + _MOST - 64])

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.transport.send(_CLOSE, self.own, self.theirs)


class Shell(Stream):
    def __init__(self, transport: Transport, own: int, theirs: int, command: str, environment: dict[str, str]) -> None:
        super().__init__(transport, own, theirs)
        self._waiting = b""
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0
        )

    def start(self) -> None:
        pumps = [
            threading.Thread(target=self._pump, args=(kind, pipe), daemon=True)
            for kind, pipe in ((_STDOUT, self.process.stdout), (_STDERR, self.process.stderr))
        ]
        for pump in pumps:
            pump.start()
        threading.Thread(target=self._finish, args=(pumps,), daemon=True).start()

    def _pump(self, kind: int, pipe: object) -> None:
        while data := pipe.read(100_000):  # type: ignore[attr-defined]
            self.write(struct.pack("<BI", kind, len(data)) + data)

    def _finish(self, pumps: list[threading.Thread]) -> None:
        for pump in pumps:
            pump.join()
        self.write(struct.pack("<BIB", _EXIT, 1, self.process.wait() & 0xFF))
        self.end()
        for pipe in (self.process.stdout, self.process.stderr):
            pipe.close()

    def take(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= 5:
            kind, length = struct.unpack("<BI", self._waiting[:5])
            if len(self._waiting) < 5 + length:
                return
            body, self._waiting = self._waiting[5 : 5 + length], self._waiting[5 + length :]
            with contextlib.suppress(OSError, ValueError):
                if kind == _STDIN:
                    self.process.stdin.write(body)
                elif kind == _NO_MORE:
                    self.process.stdin.close()

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.close()


class Sync(Stream):
    """`push`: STAT, SEND with DATA and DONE, QUIT."""

    _waiting, _path, _held = b"", Path(), b""

    def take(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= 8:
            name, length = self._waiting[:4], int.from_bytes(self._waiting[4:8], "little")
            body = b"" if name in (b"DONE", b"QUIT") else self._waiting[8 : 8 + length]
            if name not in (b"DONE", b"QUIT") and len(body) < length:
                return
            self._waiting = self._waiting[8 + len(body) :]
            self._do(name, body)

    def _do(self, name: bytes, body: bytes) -> None:
        if name == b"STAT":
            place = Path(body.decode())
            told = place.stat() if place.exists() else None
            self.write(b"STAT" + struct.pack("<3I", told.st_mode if told else 0, 0, 0))
        elif name == b"SEND":
            path, _, mode = body.decode().rpartition(",")
            self._path, self._mode, self._held = Path(path), int(mode), b""
        elif name == b"DATA":
            self._held += body
        elif name == b"DONE":
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(self._held)
            self._path.chmod(self._mode & 0o777)
            self.write(b"OKAY\0\0\0\0")
        elif name == b"QUIT":
            self.end()

    def close(self) -> None: ...


@dataclass
class Phone:
    """Listens, and says it is a device. `environment`: of its shell."""

    environment: dict[str, str]
    unauthorized: bool = False
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    transports: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.transports.append(connection)
                threading.Thread(target=Transport(self, connection).serve, daemon=True).start()

    def unplug(self) -> None:
        """Cut every connection."""
        for connection in self.transports:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.transports.clear()

    def stop(self) -> None:
        self.listener.close()
        self.unplug()


@dataclass
class Adb:
    """The real client, with a server of its own. `environment`: variables that reach it."""

    environment: dict[str, str]

    def connect(self, phone: Phone) -> None:
        self.run("connect", phone.serial)

    def disconnect(self, phone: Phone) -> None:
        self.run("disconnect", phone.serial)

    def run(self, *words: str) -> str:
        done = subprocess.run(
            ["adb", *words], env=os.environ | self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout + done.stderr


def start(folder: Path) -> Adb:
    """Skips where adb is not installed."""
    if shutil.which("adb") is None:
        pytest.skip("adb is needed: apt-get install adb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    adb = Adb({"ANDROID_ADB_SERVER_PORT": str(port), "HOME": str(folder), "ADB_MDNS": "0"})
    adb.run("start-server")
    return adb


def shell_environment(folder: Path) -> dict[str, str]:
    """Of a device whose Python is this one."""
    return {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
