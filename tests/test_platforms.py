"""Where the command does not run, it says so instead of failing in an import."""

from __future__ import annotations

import subprocess
import sys

from pipeline import __version__


def test_windows_is_told_what_to_do() -> None:
    code = "import sys; import os; sys.platform = 'win32'; import pipeline.cli.main"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: edge runs on Linux and macOS, not on Windows itself.\n"
        "  Use it in WSL; the bundles that it makes load on Windows.\n"
    )


def test_version_is_the_packages() -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"edge {__version__}\n")
