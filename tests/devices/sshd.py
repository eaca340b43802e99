"""A real sshd on 127.0.0.1, with keys and a configuration of its own, as a board that ssh reaches."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

_SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


@dataclass
class Sshd:
    """`runner`: what names it; `folder`: with its keys and configuration."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def runner(self) -> str:
        return f"ssh:{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def client(self) -> str:
        """For EDGE_SSH."""
        return shlex.join(["ssh", "-F", str(self.folder / "client")])

    def environment(self) -> dict[str, str]:
        """Variables that a command needs to reach it, and to find this Python there."""
        return {"EDGE_SSH": self.client, "EDGE_BOARD_PYTHON": sys.executable}

    def sessions(self) -> list[int]:
        """The processes of its connections."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], check=True, capture_output=True, text=True
        )
        return [int(line) for line in found.stdout.split()]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def start(folder: Path) -> Sshd:
    """Skips where OpenSSH's programs are not installed."""
    sshd, keygen = (shutil.which(name, path=_SBIN) for name in ("sshd", "ssh-keygen"))
    if sshd is None or keygen is None or shutil.which("ssh") is None:
        pytest.skip("sshd, ssh and ssh-keygen are needed: apt-get install openssh-server openssh-client")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where a system's sshd gives its privileges up
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    (folder / "client").write_text(
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known_hosts\n"
        "GlobalKnownHostsFile none\n"
    )
    know(folder, port, folder / "host.pub")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "config"], stderr=log)
    _wait(port, process, folder / "log")
    return Sshd(folder, port, process)


def know(folder: Path, port: int, key: Path) -> None:
    """Have the client know the host by this public key."""
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(key.read_text().split()[:2])}\n")


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text().strip()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("sshd does not listen")
